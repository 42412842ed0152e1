"""What an answer of a source is worth for one address: an identity, or nobody, or nothing.

Each port is checked again against the scope and the address asked for. Whatever else the source put into its
answer counts for nothing; whatever is in doubt is nobody.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fastmeta.models import Answer, IPAddress, Port, Question, Scope, ScopeKind


@dataclass(frozen=True, slots=True)
class Verdict:
    """One of: this port; nobody (no port); refused: what concerns this address cannot be trusted; unclear: on
    which network a guest's link is cannot be told, and why.

    doubt: why several ports make nobody.
    """

    port: Port | None = None
    refused: bool = False
    unclear: str = ""
    doubt: str = ""


class Judgement:
    """One answer to these questions about a scope."""

    def __init__(self, scope: Scope, answer: Answer, questions: Sequence[Question]) -> None:
        self._answer = answer
        networks = answer.networks
        if scope.kind is ScopeKind.NETWORK:
            # A network's own id is not the source's to decide.
            networks = networks & {scope.uuid}
        self._fitting = _candidates(networks, answer.ports, questions)

    def of(self, question: Question, link: str | None) -> Verdict:
        """link: the MAC of the interface over which it is asked, if that counts."""
        ports = self._fitting.get(question, [])
        if link is not None:
            networks = self._answer.links.get(link, frozenset())
            if len(networks) != 1:
                return Verdict(unclear=_why_no_network(link, networks))
            # Two guests on two links may have the same MAC, and so the same link-local address.
            ports = [port for port in ports if port.network_id in networks]
        if any(_concerns(malformed.addresses, question) for malformed in self._answer.malformed):
            return Verdict(refused=True)
        if len(ports) == 1 and ports[0].device_id and ports[0].project_id:
            return Verdict(port=ports[0])
        if len(ports) > 1:
            which = ", ".join(sorted(port.id for port in ports)[:4])
            return Verdict(
                doubt=f"{question.address} belongs to {len(ports)} ports ({which}), so to none: its guest gets 404"
            )
        return Verdict()


def _why_no_network(link: str, networks: frozenset[str]) -> str:
    if not networks:
        return f"its MAC {link} is that of no port of the router"
    return f"its MAC {link} is that of the router's ports in {len(networks)} networks"


def _concerns(addresses: frozenset[IPAddress] | None, question: Question) -> bool:
    return addresses is None or question.mac is not None or question.address in addresses


def _candidates(
    networks: frozenset[str], ports: Sequence[Port], questions: Sequence[Question]
) -> dict[Question, list[Port]]:
    """For each question the ports that fit it and lie in one of these networks.

    A port that comes twice (pages of a list may overlap) is one; two descriptions of it that differ are two,
    and nobody's.
    """
    by_address = {question.address: question for question in questions if question.mac is None}
    by_mac = {question.mac: question for question in questions if question.mac is not None}
    found: dict[Question, dict[Port, None]] = {}
    for port in ports:
        if port.network_id not in networks:
            continue
        fitting = [by_address[address] for address in port.fixed_ips if address in by_address]
        if port.mac_address in by_mac:
            fitting.append(by_mac[port.mac_address])
        for question in fitting:
            found.setdefault(question, {})[port] = None
    return {question: list(fitting) for question, fitting in found.items()}
