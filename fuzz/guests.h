/* Guests: what they read, and what is wrong with it. See people.h. */
#ifndef FUZZ_GUESTS_H
#define FUZZ_GUESTS_H

#include "people.h"

/* What a mark in the hands of a guest means. */
static void judge_mark(const struct guest *guest, uint32_t number)
{
    if (number >= people.record_n)
        complain("guest %u got a mark that nobody made: %x", guest->serial, number);
    const struct record *record = &people.records[number];
    if (record->late)
        return;
    if (record->key == NOBODY)
        return; /* sent before any request: judged when the request comes */
    if (record->key != guest->key)
        complain("a guest of key %d got what was for key %d (record %u, server %u, request %u)", guest->key, record->key, number,
                 record->server, record->request);
}

/* Guests that sent arbitrary bytes: marks are all that is looked for. */
static void guest_scan(struct guest *guest, const uint8_t *data, size_t length)
{
    for (size_t i = 0; i < length; i++) {
        uint8_t c = data[i];
        if (c == MARK) {
            guest->mark_n = 1;
            guest->mark = 0;
        } else if (guest->mark_n) {
            int digit = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
            guest->mark = guest->mark << 4 | (uint32_t)digit;
            guest->mark_n = digit < 0 ? 0 : guest->mark_n + 1;
            if (guest->mark_n == 9) {
                judge_mark(guest, guest->mark);
                guest->mark_n = 0;
            }
        }
    }
}

static void guest_content(struct guest *guest, const uint8_t *data, size_t length)
{
    if (guest->record == NOBODY) {
        if (memchr(data, MARK, length))
            complain("guest %u got a mark in an answer that has none", guest->serial);
    } else {
        const struct record *record = &people.records[guest->record];
        size_t known = guest->content < record->made ? record->made - guest->content : 0;
        if (known > length)
            known = length;
        if (known < length && !record->mixed && !record->late)
            complain("guest %u got more content than was made of record %d", guest->serial, guest->record);
        if (!record->late && !is_content('A', (unsigned)guest->record, guest->content, data, known))
            complain("the content of record %d reached guest %u with other bytes", guest->record, guest->serial);
        guest_scan(guest, data + known, length - known);
    }
    guest->content += length;
}

static void guest_answered(struct guest *guest)
{
    people.answers_at_guests++;
    people.statuses[CORE(ct_status)(guest->status) - VALUE(CT_STATUS)]++;
    guest->answers++;
    if (guest->record != NOBODY) {
        const struct record *record = &people.records[guest->record];
        size_t length = record->length == SIZE_MAX ? record->made : record->length;
        if (record->framing == F_NONE)
            length = 0;
        if (!record->late && !record->mixed && (!record->whole || guest->content != length))
            complain("guest %u takes an answer for whole that is not: record %d, %zu bytes of %zu", guest->serial, guest->record,
                     guest->content, length);
    }
    trace("    guest %u: answered", guest->serial);
    if (guest->waiting_n) {
        guest->waiting_n--;
        memmove(guest->waiting, guest->waiting + 1, guest->waiting_n * sizeof *guest->waiting);
    }
    guest->reading = guest->ends_after ? R_OVER : R_HEAD;
}

/* An answer of the core's own: does it say what it may? */
static void judge_own(const struct guest *guest, const struct answer_head *head)
{
    static const int statuses[] = {400, 404, 408, 413, 414, 429, 431, 501, 502, 503, 504};
    bool known = false;
    for (unsigned i = 0; i < sizeof statuses / sizeof *statuses; i++)
        known |= statuses[i] == head->status;
    if (people.raw_answers && !(known && head->has_date))
        return; /* perhaps one of Nova's */
    if (!known || !head->has_date || head->content_length < 0)
        complain("guest %u got an answer that is neither Nova's nor ours, status %d", guest->serial, head->status);
    if (head->status == 503 && !head->has_retry_after && !people.raw_answers)
        complain("503 without Retry-After");
    if (head->status == 429 && !people.raw_answers) {
        bool mapped = addresses[key_address(guest->key)].bytes[10] == 255;
        uint64_t versions = python.loop->settings.rate_versions | python.model[key_scope(guest->key)].rate_versions;
        if (!(versions & (mapped ? 1 : 2)) || !head->has_retry_after)
            complain("429 for key %d, whose rate is not limited, or without Retry-After", guest->key);
    }
    if (head->status == 404 && !python.ever_absent[guest->key] && !people.raw_answers)
        complain("404 for key %d, of which nobody said that it is absent", guest->key);
}

/* Rule 7: Nova's 404 begins. */
static void judge_not_found(const struct guest *guest, const struct record *record)
{
    const LoopState *loop = python.loop;
    int key = record->key;
    const Guest *core = core_guest(guest->wire->fd);
    const Entry *entry = entry_of(key);
    /* When what was named since has ended, too, and is forgotten, the core cannot know. */
    bool remembered = entry && entry->state != VALUE(EN_PENDING);
    if (remembered && python.named[key] != record->put && record->asked_at < python.changed_at[key] &&
        python.changed_at[key] <= guest->begun_at)
        complain("404 for identity %d goes to a guest of key %d, which is identity %d by now", record->put, key, python.named[key]);
    /* Was it doubted? What was decided earlier, or could not be asked, is not looked at. */
    if (kernel.faults_given || !core || core->held || guest->begun_turn != kernel.turns || python.problems[VALUE(PR_EVENTS_LOST)] ||
        loop->counters.values[VALUE(CT_EVENTS_LOST)])
        return;
    if (!entry)
        complain("404 for identity %d passes, and nothing is known of key %d", record->put, key);
    bool young = entry->state == VALUE(EN_VALID) && loop->now_us - entry->confirmed_us < YOUNG_US;
    /* Held, it may pass long after the question, when time leaps. */
    bool asked = entry->rechecked_us &&
                 (loop->now_us - entry->rechecked_us < RECHECKED_US || entry->rechecked_us >= core->sent_us);
    if (entry->state == VALUE(EN_ABSENT) || young)
        return;
    if (!asked)
        complain("404 for identity %d passes, and the source was not asked about key %d", record->put, key);
    /* What may not be repeated is asked about, and not held. */
    if (core->repeatable && is_rechecked(entry, key) && loop->now_us - entry->rechecked_us < WAITED_US &&
        loop->now_ms < core->upstream_by_ms)
        complain("404 for identity %d passes before the source has said anything about key %d", record->put, key);
}

/* The head of an answer is complete. */
static void guest_head(struct guest *guest, const uint8_t *data, size_t length)
{
    struct answer_head head;
    const struct token *token = guest->waiting_n ? &people.tokens[guest->waiting[0]] : NULL;
    const char *wrong = read_answer_head(data, length, &head);
    if (wrong)
        complain("guest %u got a head with %s", guest->serial, wrong);
    trace("    guest %u: status %d%s", guest->serial, head.status, head.mark.length ? " of Nova's" : "");
    if (head.status == 100) {
        if (!token || !token->expects || head.line_n)
            complain("100 Continue for guest %u, which asked for none", guest->serial);
        return;
    }
    if (!token && !(head.status == 503 && head.close && !head.mark.length))
        complain("guest %u got an answer, status %d, and had asked nothing", guest->serial, head.status);
    guest->record = NOBODY;
    guest->status = head.status;
    guest->content = 0;
    guest->ends_after = head.close || (token && token->http10 && !head.keeps);
    if (head.mark.length) {
        uint32_t number = 0;
        if (head.mark.length != 9 || head.mark.data[0] != MARK)
            complain("a mark that is none");
        for (int i = 1; i < 9; i++)
            number = number << 4 | (uint32_t)(strchr("0123456789abcdef", head.mark.data[i]) - "0123456789abcdef");
        judge_mark(guest, number);
        struct record *record = &people.records[number];
        guest->record = (int)number;
        if (!record->late) {
            if (record->token != NOBODY && record->token != guest->waiting[0])
                complain("guest %u got the answer to token %d, and waits for %d", guest->serial, record->token, guest->waiting[0]);
            if (record->status != head.status)
                complain("status %d became %d", record->status, head.status);
            if (head.status == 403 && record->may_ask_twice && !(token->signed_present && token->signed_next))
                complain("guest %u gets 403, and the other secret was not tried", guest->serial);
            if (record->put != NOBODY && record->asked_at < python.revoked_at[record->key] &&
                python.revoked_at[record->key] <= guest->begun_at)
                complain("an answer under identity %d began although it was revoked", record->put);
            if (record->put != NOBODY && record->status == 404)
                judge_not_found(guest, record);
        }
    } else {
        judge_own(guest, &head);
    }
    /* Who refuses a head that it could not read does not know that it was HEAD. */
    bool for_head = token && token->for_head && !(head.close && !head.mark.length);
    if (for_head || head.status == 204 || head.status == 304) {
        guest_answered(guest);
    } else if (head.chunked) {
        guest->reading = R_CHUNK_SIZE;
    } else if (head.content_length >= 0) {
        guest->left = (uint64_t)head.content_length;
        guest->reading = R_LENGTH;
        if (guest->left == 0)
            guest_answered(guest);
    } else {
        if (!guest->ends_after)
            complain("an answer to guest %u without a framing", guest->serial);
        guest->reading = R_CLOSE;
    }
}

/* Bytes that the kernel took from the core for a guest. */
static void guest_reads(struct guest *guest, const uint8_t *data, size_t length)
{
    if (guest->wild) {
        guest_scan(guest, data, length);
        return;
    }
    for (size_t at = 0; at < length;) {
        size_t n = length - at;
        switch (guest->reading) {
        case R_HEAD:
            if (bytes_length(&guest->head) == 0) {
                model_follow();
                guest->begun_at = python.done;
                guest->begun_turn = kernel.turns;
            }
            at += head_grows(&guest->head, data + at, n);
            if (head_is_complete(&guest->head)) {
                guest_head(guest, guest->head.data + guest->head.start, bytes_length(&guest->head));
                bytes_clear(&guest->head);
            }
            break;
        case R_LENGTH:
        case R_CHUNK:
            if (n > guest->left)
                n = (size_t)guest->left;
            guest_content(guest, data + at, n);
            at += n;
            guest->left -= n;
            if (guest->left == 0) {
                if (guest->reading == R_LENGTH)
                    guest_answered(guest);
                else
                    guest->reading = R_CHUNK_END;
            }
            break;
        case R_CHUNK_SIZE:
        case R_CHUNK_END:
        case R_TRAILER: {
            bytes_append(&guest->head, data + at, 1);
            uint8_t c = data[at++];
            if (bytes_length(&guest->head) > 20)
                complain("a line of chunked coding that does not end");
            if (c != '\n')
                break;
            struct text line = {guest->head.data + guest->head.start, bytes_length(&guest->head)};
            if (line.length < 2 || line.data[line.length - 2] != '\r')
                complain("a line of chunked coding without CRLF");
            line.length -= 2;
            if (guest->reading == R_CHUNK_SIZE) {
                guest->left = 0;
                for (size_t i = 0; i < line.length; i++) {
                    const char *digit = strchr("0123456789abcdef", line.data[i]);
                    if (!digit || !line.data[i])
                        complain("a chunk's size with %02x", line.data[i]);
                    guest->left = guest->left * 16 + (uint64_t)(digit - "0123456789abcdef");
                }
                if (line.length == 0)
                    complain("a chunk without a size");
                guest->reading = guest->left ? R_CHUNK : R_TRAILER;
            } else {
                if (line.length)
                    complain("bytes where a chunk should end, or trailers");
                if (guest->reading == R_TRAILER)
                    guest_answered(guest);
                else
                    guest->reading = R_CHUNK_SIZE;
            }
            bytes_clear(&guest->head);
            break;
        }
        case R_CLOSE:
            guest_content(guest, data + at, n);
            at = length;
            break;
        case R_OVER:
            complain("guest %u got bytes behind the last answer", guest->serial);
        }
    }
}

/* The core's side of the connection ended: by a FIN, or (reset) so that the guest sees that it was cut. */
static void guest_sees_end(struct guest *guest, bool reset)
{
    if (!guest->wild && guest->reading == R_CLOSE && !reset) {
        guest->ends_after = true;
        guest_answered(guest);
    }
    if (!guest->wild && guest->reading == R_HEAD && bytes_length(&guest->head) == 0)
        guest->reading = R_OVER;
}

static struct guest *guest_new(int key, int listener_fd)
{
    for (unsigned i = 0; i < GUESTS; i++) {
        struct guest *guest = &people.guests[i];
        if (guest->used)
            continue;
        struct wire *wire = kernel_arrive(listener_fd);
        if (!wire)
            return NULL;
        struct bytes todo = guest->todo, head = guest->head;
        *guest = (struct guest){.used = true, .serial = ++people.guest_serial, .wire = wire, .key = key, .record = NOBODY,
                                .body_token = NOBODY, .todo = todo, .head = head};
        bytes_clear(&guest->todo);
        bytes_clear(&guest->head);
        if (people.guest_most <= i)
            people.guest_most = i + 1;
        wire->far = guest;
        typeof(addresses[0]) *address = &addresses[key_address(key)];
        struct sockaddr_in *four = (struct sockaddr_in *)&wire->peer;
        struct sockaddr_in6 *six = (struct sockaddr_in6 *)&wire->peer;
        if (address->family == AF_INET) {
            *four = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons(40000)};
            memcpy(&four->sin_addr, address->bytes + 12, 4);
            wire->peer_length = sizeof *four;
        } else {
            /* Of other than link-local addresses the interface says nothing. */
            *six = (struct sockaddr_in6){.sin6_family = AF_INET6, .sin6_scope_id = address->interface ? address->interface : 3};
            memcpy(&six->sin6_addr, address->bytes, 16);
            wire->peer_length = sizeof *six;
        }
        trace("    guest %u: connects, key %d", guest->serial, key);
        return guest;
    }
    return NULL;
}

static void guest_delivers(struct guest *guest, size_t length)
{
    if (length > bytes_length(&guest->todo))
        length = bytes_length(&guest->todo);
    if (!guest->wire || !length)
        return;
    far_bytes(guest->wire, guest->todo.data + guest->todo.start, length);
    guest->todo.start += length;
    kernel.progress++;
    trace("    guest %u: sends %zu bytes", guest->serial, length);
}

#endif
