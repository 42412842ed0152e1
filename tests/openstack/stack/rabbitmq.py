"""How RabbitMQ and its port mapper are run: as ours, and beside whatever of them the machine has."""

from __future__ import annotations

from .layout import ADDRESS, Layout

ERLANG_ARGUMENTS = (
    "-kernel inet_dist_use_interface {127,0,0,1} "
    # Its schedulers look for work in vain before they sleep: on a machine of two processors that all others pay for.
    "+sbwt none +sbwtdcpu none +sbwtdio none"
)


def rabbitmq_environment(layout: Layout) -> dict[str, str]:
    """What RabbitMQ and epmd read from their environment."""
    home = layout.data / "rabbitmq"
    tcp_ports = layout.tcp_ports
    return {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "LANG": "C.UTF-8",
        "HOME": str(home),
        "ERL_EPMD_ADDRESS": ADDRESS,
        "ERL_EPMD_PORT": str(tcp_ports.epmd),
        # Without it the machine's own /etc/rabbitmq/rabbitmq-env.conf would be read.
        "RABBITMQ_CONF_ENV_FILE": str(layout.etc / "rabbitmq-env.conf"),
        "RABBITMQ_CONFIG_FILE": str(layout.etc / "rabbitmq.conf"),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(layout.etc / "enabled_plugins"),
        "RABBITMQ_NODENAME": f"fastmeta-{tcp_ports.rabbitmq}@localhost",
        "RABBITMQ_DIST_PORT": str(tcp_ports.distribution),
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": ERLANG_ARGUMENTS,
        "RABBITMQ_MNESIA_BASE": str(home / "mnesia"),
        "RABBITMQ_LOG_BASE": str(layout.logs),
        # The script then becomes the server (exec), and the process that was started is the one to stop.
        "RUNNING_UNDER_SYSTEMD": "true",
    }


def rabbitmq_configuration(layout: Layout) -> str:
    """Its file."""
    return f"""listeners.tcp.local = {ADDRESS}:{layout.tcp_ports.rabbitmq}
default_user = openstack
default_pass = {layout.secrets.bus}
default_permissions.configure = .*
default_permissions.read = .*
default_permissions.write = .*
log.console = false
log.file = rabbitmq.log
log.file.level = warning
vm_memory_high_watermark.absolute = 1GB
disk_free_limit.absolute = 100MB
"""
