/* Nova: what it reads of the core, and what it sends. See people.h. */
#ifndef FUZZ_NOVA_H
#define FUZZ_NOVA_H

#include "guests.h"

static struct server *server_new(struct wire *wire)
{
    for (unsigned i = 0; i < SERVERS; i++) {
        struct server *server = &people.servers[i];
        if (server->used)
            continue;
        struct bytes todo = server->todo, head = server->head;
        *server = (struct server){.used = true, .serial = ++people.server_serial, .wire = wire, .token = NOBODY, .key = NOBODY,
                                  .put = NOBODY, .host = NOBODY, .dirty_at = UINT64_MAX, .todo = todo, .head = head};
        bytes_clear(&server->todo);
        bytes_clear(&server->head);
        if (people.server_most <= i)
            people.server_most = i + 1;
        wire->far = server;
        return server;
    }
    complain("more than %d connections to Nova", SERVERS);
}

/* The core is about to send on this connection. When it begins a request, this is the moment at which its identity must be
 * good, and the connection clean. */
static void server_tried(struct server *server)
{
    if (server->tried || server->in_request)
        return;
    model_follow();
    server->tried = true;
    server->tried_at = python.done;
    server->tried_us = people.turn_us;
    server->tried_set = python.set;
    if (server->request_n == 0)
        return;
    if (server->wire->unclean)
        complain("server %u: a request is sent on a connection that was not quiet when epoll was asked", server->serial);
    if (!server->complete)
        complain("server %u: a request is sent before the last one was there", server->serial);
    if (server->wild)
        return;
    if (server->sent > server->dirty_at)
        complain("server %u: a request is sent on a connection that should have been closed", server->serial);
    if (server->answered_at == 0 || server->sent < server->answered_at)
        complain("server %u: a request is sent before the last one was answered", server->serial);
}

/* A request goes to a server that Python names, and by the name that it has there. */
static void judge_server(struct server *server, struct text host)
{
    bool ipv6 = server->wire->peer.ss_family == AF_INET6;
    int name = text_is(host, hosts[1]);
    if (!text_is(host, hosts[name]) || (server->host != NOBODY && server->host != name))
        complain("server %u: a request for another host", server->serial);
    server->host = name;
    if (server->place >= (server->tried_set & SET_N) || ipv6 != !!(server->tried_set & SET_IPV6) ||
        name != !!(server->tried_set & SET_OTHER_HOST))
        complain("server %u: a request is sent to a server that was replaced", server->serial);
}

/* A request is at one server, or, when that one is slow, at two. */
static void judge_second(const struct server *server)
{
    unsigned others = 0;
    for (unsigned i = 0; i < people.server_most; i++) {
        const struct server *other = &people.servers[i];
        if (other == server || !other->used || !other->wire || other->wild || other->token != server->token ||
            (other->answered_at && other->sent >= other->answered_at))
            continue;
        others++;
        if (python.upstreams == 1 && other->place == server->place)
            complain("token %d is twice at the server in place %d", server->token, server->place);
    }
    if (others > (python.loop->settings.second_try_after_ms ? 1 : 0))
        complain("token %d is at %u servers", server->token, others + 1);
}

/* Signed anew after it was refused, and with the other secret. */
static void judge_secret(const struct server *server, struct token *token)
{
    if (token->refused.used && !python.revoked && python.upstreams == 1 && token->refused.place == server->place &&
        token->refused.put == server->put && token->refused.signed_next == server->signed_next)
        complain("token %d is signed again as the server in place %d refused it", server->token, server->place);
    if (server->signed_next)
        token->signed_next = true;
    else
        token->signed_present = true;
}

/* Nova said 404, and the core did not pass it on: only because it is not for this instance, or because what was known of that
 * had ended. */
static void judge_again(const struct server *server, const struct token *token)
{
    uint64_t at = token->not_found.asked_at;
    if (!token->not_found.used || token->not_found.put != server->put || kernel.faults_given)
        return;
    if (python.revoked_at[server->key] <= at && python.scope_revoked_at[key_scope(server->key)] <= at &&
        python.puts[server->put].lapsed_at <= at)
        complain("token %d is sent again after 404, and nothing was said against identity %d", server->token, server->put);
}

/* The core closes a connection: what has it read of it? */
static void server_was_read(const struct server *server)
{
    if (server->head_ends && server->sent - bytes_length(&server->wire->in) >= server->head_ends && server->answers == 1 &&
        !server->wild && server->token != NOBODY) {
        struct token *token = &people.tokens[server->token];
        token->not_found.used = true;
        token->not_found.put = server->put;
        token->not_found.asked_at = server->asked_at;
    }
    if (!server->refused || !server->may_ask_twice || server->wild || server->token == NOBODY || server->answers != 1 ||
        kernel.faults_given || server->answered_at == 0 || server->sent < server->answered_at || bytes_length(&server->wire->in))
        return;
    struct token *token = &people.tokens[server->token];
    token->refused.used = true;
    token->refused.signed_next = server->signed_next;
    token->refused.place = server->place;
    token->refused.put = server->put;
}

static void server_head(struct server *server, const uint8_t *data, size_t length)
{
    struct sent_head head;
    const char *wrong = read_sent_head(data, length, &head);
    if (wrong)
        complain("Nova got a head with %s", wrong);
    people.requests_at_nova++;
    server->request_n++;
    server->token = NOBODY;
    server->complete = false;
    server->answers = 0;
    server->answered_at = 0;
    server->refused = false;
    server->head_ends = 0;
    server->tried = false;
    server->asked_at = server->tried_at;
    server->for_head = text_is(head.method, "HEAD");
    /* Under which identity, and was it good? */
    if (head.instance.length < 10 || memcmp(head.instance.data, "instance-", 9) != 0 || head.project.length < 9)
        complain("an identity that nobody put");
    int64_t number = text_number((struct text){head.instance.data + 9, head.instance.length - 9});
    if (number < 0 || number >= python.put_n ||
        text_number((struct text){head.project.data + 8, head.project.length - 8}) != number)
        complain("instance and project of different identities");
    struct put *put = &python.puts[number];
    if (!text_is(head.address, addresses[key_address(put->key)].text) || !(text_is(head.signature, put->signature) || (put->next_signature[0] && text_is(head.signature, put->next_signature))))
        complain("address or signature are not those of identity %ld", (long)number);
    judge_server(server, head.host);
    /* Of an earlier time under the same identity nothing is known any more. */
    if (!(put->since <= server->tried_at || put->again) || server->tried_at >= put->until)
        complain("a request is sent under identity %ld, which was not the present one", (long)number);
    if (server->tried_us >= put->ends_us && server->tried_at >= put->times_at)
        complain("a request is sent under identity %ld, which had ended", (long)number);
    server->put = (int)number;
    server->signed_next = put->next_signature[0] && text_is(head.signature, put->next_signature);
    server->key = put->key;
    /* Whose request? */
    if (head.target.length > 2 && memcmp(head.target.data, "/~", 2) == 0) {
        const uint8_t *query = memchr(head.target.data, '?', head.target.length);
        size_t end = query ? (size_t)(query - head.target.data) : head.target.length;
        int64_t which = text_number((struct text){head.target.data + 2, end - 2});
        if (which < 0 || which >= people.token_n)
            complain("a token that nobody has");
        struct token *token = &people.tokens[which];
        server->token = (int)which;
        if (token->key != server->key)
            complain("the request of a guest of key %d goes under the identity of key %d", token->key, server->key);
        if (!token->wild) {
            if (token->malformed)
                complain("a malformed request reached Nova");
            if (token->for_head != server->for_head)
                complain("HEAD became something else, or the other way round");
            if (token->length != (head.content_length < 0 ? 0 : (size_t)head.content_length))
                complain("content of %zu bytes became %ld", token->length, (long)head.content_length);
            if (!token->repeatable && token->seen)
                complain("a request that may not be repeated was sent twice");
        }
        token->seen++;
        judge_second(server);
        judge_secret(server, token);
        judge_again(server, token);
        if (!put->used && !token->wild && token->made_at >= put->confirmed_at) {
            put->used = true;
            put->used_turn = kernel.turns;
        }
    }
    bool repeatable = (server->for_head || text_is(head.method, "GET")) && head.content_length < 0;
    server->may_ask_twice = repeatable && put->next_signature[0];
    if (!repeatable && server->request_n > 1)
        complain("a request that may not be repeated goes out on a kept connection");
    for (unsigned i = 0; i < people.record_n && server->request_n == 1; i++) {
        struct record *record = &people.records[i];
        if (record->server == server->serial && record->key == NOBODY)
            record->key = server->key; /* sent unasked on a fresh connection: it may only reach this guest */
    }
    server->body_left = head.content_length < 0 ? 0 : (uint64_t)head.content_length;
    server->body_at = 0;
    server->in_request = true;
    trace("    server %u: request %u, token %d, key %d, identity %d, %lu bytes of content", server->serial, server->request_n,
          server->token, server->key, server->put, (unsigned long)server->body_left);
}

/* Bytes that the kernel took from the core for Nova. */
static void server_reads(struct server *server, const uint8_t *data, size_t length)
{
    while (length) {
        if (!server->in_request || bytes_length(&server->head)) {
            server->in_request = true;
            size_t n = head_grows(&server->head, data, length);
            data += n;
            length -= n;
            if (!head_is_complete(&server->head))
                continue;
            server_head(server, server->head.data + server->head.start, bytes_length(&server->head));
            bytes_clear(&server->head);
        } else {
            size_t n = length < server->body_left ? length : (size_t)server->body_left;
            bool known = server->token != NOBODY && !people.tokens[server->token].wild;
            if (known && !is_content('a', (unsigned)server->token, (size_t)server->body_at, data, n))
                complain("the content of token %d has other bytes", server->token);
            server->body_at += n;
            server->body_left -= n;
            data += n;
            length -= n;
        }
        if (bytes_length(&server->head) == 0 && server->body_left == 0) {
            server->in_request = false;
            server->complete = true;
            if (length)
                complain("server %u: a second request before the first was answered", server->serial);
        }
    }
}

/* The core sends no more of a request: it was given up on its way. What has come whole is not ended like that. */
static void server_sees_end(const struct server *server)
{
    if (!server->in_request && !server->tried)
        complain("server %u: the connection is shut down behind a whole request", server->serial);
}

/* Bytes that come when their request has been answered already. If the connection serves another one by then, or may get
 * one in this very turn, nobody can tell whose they are: docs/architecture.md, "What HTTP/1.1 cannot give". */
static void server_sends_late(struct server *server, size_t length)
{
    unsigned begun = server->request_n + server->tried;
    for (unsigned i = 0; i < people.record_n; i++) {
        struct record *record = &people.records[i];
        if (record->server != server->serial || record->start >= server->sent + length || record->stop <= server->sent)
            continue;
        if (record->request < begun && begun > 1)
            record->late = true;
        else if (kernel.in_turn && server->answers > 1)
            record->late = true;
        if (record->late)
            server->wild = true;
    }
    if (kernel.in_turn && server->sent + length > server->dirty_at)
        server->wild = true;
}

/* An orderly end: for content that ends with the connection it is the only sign that it is whole. */
static void server_ends(struct server *server)
{
    far_end(server->wire);
    kernel.progress++;
    trace("    server %u: ends", server->serial);
    for (unsigned i = 0; i < people.record_n; i++) {
        struct record *record = &people.records[i];
        if (record->server != server->serial || !record->needs_end)
            continue;
        if (record->stop <= server->sent)
            record->whole = true;
        else
            record->mixed = true;
    }
}

static void server_delivers(struct server *server, size_t length)
{
    if (length > bytes_length(&server->todo))
        length = bytes_length(&server->todo);
    if (!server->wire || server->wire->connecting || server->wire->in_ended || server->wire->down)
        return;
    if (length) {
        server_sends_late(server, length);
        far_bytes(server->wire, server->todo.data + server->todo.start, length);
        server->todo.start += length;
        server->sent += length;
        kernel.progress++;
        trace("    server %u: sends %zu bytes", server->serial, length);
    }
    if (server->end_wanted && bytes_length(&server->todo) == 0)
        server_ends(server);
    for (unsigned i = 0; i < people.record_n; i++) {
        struct record *record = &people.records[i];
        if (record->server == server->serial && record->end && record->end <= server->sent)
            record->whole |= !record->needs_end;
    }
}

#endif
