"""Requests as bytes, and what RFC 9112 and RFC 9110 have a server answer to them.

Each is followed by `LAST` on the same connection. Where a request is refused, nobody knows where
the next one begins, so `LAST` is not answered. Bodies that a careless server would read as a
request of its own are `INNER`, which is never answered.
"""

from __future__ import annotations

import re

BODY = b'{"query": "{ __typename }"}'
POST = b"POST /graphql HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
GET = b"GET /graphql?query={__typename} HTTP/1.1\r\nHost: localhost\r\n"
INNER = b"GET /graphql?query={inner:__typename} HTTP/1.1\r\nHost: localhost\r\n\r\n"
LAST = (
    b"GET /graphql?query={last:__typename} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
)
LASTS = b'{"data":{"last":"Query"}}'
HANDSHAKE = (
    b"GET /graphql HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)

# A request is answered, and so is `LAST`; or its body is refused, with its end known; or it is
# refused itself, and the connection is closed.
ANSWERED, REFUSED, CLOSED = [200, 200], [400, 200], [400]
# What a proxy says that takes less.
REFUSALS = (400, 405, 413, 414, 417, 421, 431, 501, 505)


def whole(head: bytes, body: bytes = BODY) -> bytes:
    """A request with the length of its body."""
    return b"%sContent-Length: %d\r\n\r\n%s" % (head, len(body), body)


def chunks(head: bytes, *bodies: bytes, trailers: bytes = b"") -> bytes:
    """A request with its body in chunks."""
    parts = b"".join(b"%x\r\n%s\r\n" % (len(body), body) for body in bodies)
    return b"%sTransfer-Encoding: chunked\r\n\r\n%s0\r\n%s\r\n" % (head, parts, trailers)


def chunked(body: bytes, coding: bytes = b"chunked") -> bytes:
    """A request with this for the chunks of its body."""
    return b"%sTransfer-Encoding: %s\r\n\r\n%s" % (POST, coding, body)


def lengths(*values: bytes) -> bytes:
    """A request with these lengths, and an inner request where one of them is none."""
    return POST + b"".join(b"Content-Length: %s\r\n" % value for value in values) + b"\r\n" + INNER


def coded(*values: bytes) -> bytes:
    """A request with these codings, one chunk, and an inner request behind it."""
    headers = b"".join(b"Transfer-Encoding: %s\r\n" % value for value in values)
    return POST + headers + b"\r\n1b\r\n%s\r\n0\r\n\r\n" % BODY + INNER


def get(
    target: bytes, headers: bytes = b"Host: localhost\r\n", version: bytes = b"HTTP/1.1"
) -> bytes:
    """A request by GET."""
    return b"GET %s %s\r\n%s\r\n" % (target, version, headers)


QUERY = b"/graphql?query={__typename}"

OFFERS = {
    f"{how}, an offer of {protocol}": (raw, expected)
    for protocol in ("h2c", "TLS/1.2", "x", "websocket", "websocket, h2c")
    for offer in (f"Upgrade: {protocol}\r\nConnection: Upgrade\r\n".encode(),)
    for how, raw, expected in (
        ("POST", whole(POST + offer), ANSWERED),
        ("chunks", chunks(POST + offer, BODY[:5], BODY[5:]), ANSWERED),
        ("a request for a body", whole(POST + offer, INNER), REFUSED),
        ("a request in chunks", chunks(POST + offer, INNER), REFUSED),
        ("a request in a GET", whole(GET + offer, INNER), ANSWERED),
        ("three of them", whole(POST + offer) * 3, [200, 200, 200, 200]),
        ("after another", whole(POST) + whole(POST + offer), [200, 200, 200]),
    )
}
HTTP2 = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n"

REQUESTS: dict[str, tuple[bytes, list[int]]] = {
    **OFFERS,
    "HTTP/2 offered": (whole(POST + HTTP2), ANSWERED),
    "an offer on GET": (GET + HTTP2 + b"\r\n", ANSWERED),
    "an offer on HEAD": (GET.replace(b"GET", b"HEAD") + HTTP2 + b"\r\n", ANSWERED),
    "an offer with another method": (whole(b"PUT" + (POST + HTTP2)[4:], INNER), [401, 200]),
    "an offer in HTTP/1.0": (whole(POST.replace(b"1.1", b"1.0") + HTTP2), [200]),
    "an offer in a trailer": (chunks(POST, BODY, trailers=HTTP2), ANSWERED),
    "a handshake with a body": (whole(HANDSHAKE, INNER), REFUSED),
    "a handshake with chunks": (chunks(HANDSHAKE, INNER), REFUSED),
    "a handshake in HTTP/1.0": (HANDSHAKE.replace(b"1.1", b"1.0") + b"\r\n", [400]),
    "a handshake after another request": (whole(POST) + HANDSHAKE + b"\r\n", [200, 400, 200]),
    "a handshake that is refused": (HANDSHAKE + b"\r\n" + INNER, CLOSED),
    "a handshake without a key": (
        HANDSHAKE.replace(b"Sec-WebSocket-Key", b"X-Key") + b"\r\n" + INNER,
        [400],
    ),
    # Hosts
    "no host": (get(QUERY, b""), CLOSED),
    "no host in HTTP/1.0": (get(QUERY, b"", b"HTTP/1.0"), [200]),
    "two hosts": (get(QUERY, b"Host: localhost\r\nHost: b\r\n"), CLOSED),
    "the same host twice": (get(QUERY, b"Host: localhost\r\nHost: localhost\r\n"), CLOSED),
    "an empty host": (get(QUERY, b"Host:\r\n"), ANSWERED),
    "a port": (get(QUERY, b"Host: localhost:8000\r\n"), ANSWERED),
    "an address of IPv6": (get(QUERY, b"Host: [::1]:8000\r\n"), ANSWERED),
    **{
        f"the host {host!r}": (get(QUERY, b"Host: %s\r\n" % host), CLOSED)
        for host in (b"a b", b"a/b", b"ann@a", b"a:b", b"a:1:2", b"[::1", b"a?b", b"\xc3\xa9")
    },
    # Targets
    "an absolute form": (get(b"http://localhost" + QUERY), ANSWERED),
    "an absolute form in capitals": (get(b"HTTP://localhost" + QUERY), ANSWERED),
    "an absolute form of https": (get(b"https://localhost:443" + QUERY), ANSWERED),
    "an absolute form without a path": (get(b"http://localhost?a"), [404, 200]),
    "an absolute form, no host": (get(b"http://localhost" + QUERY, b""), CLOSED),
    "an absolute form of a user": (get(b"http://ann@localhost" + QUERY), CLOSED),
    "an absolute form of FTP": (get(b"ftp://localhost" + QUERY), CLOSED),
    "an absolute form of nothing": (get(b"http://" + QUERY), CLOSED),
    "two slashes": (get(b"/" + QUERY), [404, 200]),
    "no slash": (get(QUERY[1:]), CLOSED),
    "an authority": (get(b"localhost:80"), CLOSED),
    "an asterisk": (get(b"*"), CLOSED),
    "a fragment": (get(QUERY + b"#a"), CLOSED),
    "a tab in a target": (get(QUERY + b"\ta"), CLOSED),
    "a byte beyond ASCII": (get(QUERY + b"\xe9"), CLOSED),
    # Methods
    "CONNECT": (get(b"localhost:80").replace(b"GET", b"CONNECT") + INNER, CLOSED),
    "CONNECT with a path": (whole(POST.replace(b"POST", b"CONNECT"), INNER), CLOSED),
    "TRACE": (GET.replace(b"GET", b"TRACE") + b"\r\n", [405, 200]),
    "OPTIONS": (GET.replace(b"GET", b"OPTIONS") + b"\r\n", [405, 200]),
    "DELETE with a body": (whole(POST.replace(b"POST", b"DELETE"), INNER), [404, 200]),
    "an unknown method": (whole(POST.replace(b"POST", b"BREW"), INNER), CLOSED),
    "a method in small letters": (whole(POST.replace(b"POST", b"post"), INNER), CLOSED),
    # Lengths
    "a body on GET": (whole(GET, INNER), ANSWERED),
    "chunks on GET": (chunks(GET, INNER), ANSWERED),
    "a body on HEAD": (whole(GET.replace(b"GET", b"HEAD"), INNER), ANSWERED),
    "no length": (POST + b"\r\n", REFUSED),
    "zeros before a length": (lengths(b"00%d" % len(INNER)), REFUSED),
    "white space after a length": (lengths(b"%d \t" % len(INNER)), REFUSED),
    "two lengths": (lengths(b"0", b"%d" % len(INNER)), CLOSED),
    "two other lengths": (lengths(b"%d" % len(INNER), b"0"), CLOSED),
    "a length twice": (lengths(b"0", b"0"), CLOSED),
    "white space before the colon": (whole(POST, INNER).replace(b"Length:", b"Length :"), CLOSED),
    "a tab before the colon": (whole(POST, INNER).replace(b"Length:", b"Length\t:"), CLOSED),
    **{
        f"the length {length!r}": (lengths(length), CLOSED)
        for length in (
            *(b"", b"+0", b"-0", b"-1", b"0,0", b"0, 5", b"0 0", b"0x0", b"1e1", b"0.0", b"\x0b0"),
            *(b"0;", b"\xb2", b"18446744073709551616", b"9" * 400, b'"0"', b"0_0", b"0\x00"),
        )
    },
    "a length and chunks": (chunks(POST + b"Content-Length: 5\r\n", BODY) + INNER, CLOSED),
    "chunks and a length": (
        POST + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n" + INNER,
        CLOSED,
    ),
    # Codings
    "chunks": (chunks(POST, BODY[:1], BODY[1:]), ANSWERED),
    "chunks in capitals": (chunked(b"1B\r\n%s\r\n0\r\n\r\n" % BODY, b"Chunked"), ANSWERED),
    "chunks and white space": (
        chunked(b"1b\r\n%s\r\n0\r\n\r\n" % BODY, b" \tchunked "),
        ANSWERED,
    ),
    "chunks in HTTP/1.0": (chunks(POST.replace(b"1.1", b"1.0"), INNER), CLOSED),
    **{
        f"the coding {b' and '.join(codings)!r}": (coded(*codings), CLOSED)
        for codings in (
            *((b"",), (b"identity",), (b"gzip",), (b"gzip, chunked",), (b"identity, chunked",)),
            *((b"chunked, identity",), (b"chunked, chunked",), (b"chunked,",), (b",chunked",)),
            *((b"xchunked",), (b"chunkedx",), (b"\x0bchunked",), (b"chunked\x0b",), (b"chun ked",)),
            *((b'"chunked"',), (b"chunked;q=1",), (b"\x00chunked",), (b"\xa0chunked",)),
            *((b"chunked", b"chunked"), (b"chunked", b"identity"), (b"identity", b"chunked")),
            *((b"chunked", b""), (b"", b"chunked"), (b"chun\r\n ked",), (b"\r\n chunked",)),
        )
    },
    "a coding with an underscore": (POST + b"Transfer_Encoding: chunked\r\n\r\n", REFUSED),
    "white space before a coding's colon": (
        coded(b"chunked").replace(b"Encoding:", b"Encoding :"),
        CLOSED,
    ),
    # Chunks
    "an extension": (chunked(b'1b;a=b;c="d\\"e"\r\n%s\r\n0;f\r\n\r\n' % BODY), ANSWERED),
    "zeros before a chunk's length": (chunked(b"0000001b\r\n%s\r\n0\r\n\r\n" % BODY), ANSWERED),
    "trailers": (
        chunks(POST, BODY, trailers=b"Cookie: a=b\r\nX-Request-Id: mine\r\nAccept: a/b\r\n"),
        ANSWERED,
    ),
    "a length in a trailer": (chunks(POST, BODY, trailers=b"Content-Length: 5\r\n"), CLOSED),
    **{
        f"the chunks {body!r}": (chunked(body) + INNER, CLOSED)
        for body in (
            *(b"x\r\n", b"\r\n0\r\n\r\n", b"-1\r\n", b"+0\r\n\r\n", b"0x0\r\n\r\n", b" 0\r\n\r\n"),
            *(b"0 \r\n\r\n", b"0\n\n", b"1\r\na\n0\r\n\r\n", b"1\na\r\n0\r\n\r\n", b"1\r\nab\r\n"),
            *(b"10000000000000000\r\n", b"0;a\nb\r\n\r\n", b"0;a\rb\r\n\r\n", b"0;\x00\r\n\r\n"),
            *(b"1\r\na0\r\n\r\n", b"1\r\na\r0\r\n\r\n", b"0\r\na: b\n\r\n", b"0\r\n a: b\r\n\r\n"),
            *(b"1_0\r\n", b";a\r\n", b"0\r\na\r\n\r\n", b"0\r\n: b\r\n\r\n", b"0\r\r\n\r\n"),
        )
    },
    # Expectations
    "an expectation": (whole(POST + b"Expect: 100-continue\r\n"), ANSWERED),
    "an expectation in capitals": (whole(POST + b"EXPECT: 100-Continue \r\n"), ANSWERED),
    "an expectation without a body": (GET + b"Expect: 100-continue\r\n\r\n", ANSWERED),
    "an expectation of HTTP/1.0": (
        whole(POST.replace(b"1.1", b"1.0") + b"Expect: 100-continue\r\n"),
        [200],
    ),
    "another expectation": (whole(POST + b"Expect: a=b\r\n", INNER), REFUSED),
    # Headers
    "values that are folded": (POST + b"X-A: a\r\n b\r\n\r\n" + INNER, CLOSED),
    "white space before the first header": (b"POST / HTTP/1.1\r\n Host: a\r\n\r\n" + INNER, CLOSED),
    "a header without a colon": (POST + b"X-A\r\n\r\n" + INNER, CLOSED),
    "a header without a name": (POST + b": a\r\n\r\n" + INNER, CLOSED),
    "a name of two words": (POST + b"X A: a\r\n\r\n" + INNER, CLOSED),
    **{
        f"{byte!r} in a value": (POST + b"X-A: a%sb\r\n\r\n" % byte + INNER, CLOSED)
        for byte in (b"\0", b"\r", b"\n", b"\x01", b"\x0b", b"\x7f", b"\n\r", b"\r\r\n")
    },
    **{
        f"{byte!r} in a name": (POST + b"X%sA: a\r\n\r\n" % byte + INNER, CLOSED)
        for byte in (b"\0", b"\r", b"\n", b"(", b"\xe9", b"\t")
    },
    "lines that end by \\n": (whole(POST).replace(b"\r\n", b"\n"), CLOSED),
    "lines that end by \\r": (whole(POST).replace(b"\r\n", b"\r"), CLOSED),
    "empty lines before": (b"\r\n\r\n" + whole(POST), ANSWERED),
    "names of headers in Connection": (
        whole(POST + b"Connection: keep-alive, content-length, host, x-a\r\n"),
        ANSWERED,
    ),
    "a media type twice": (whole(POST + b"Content-Type: text/plain\r\n"), CLOSED),
    "tokens of two": (
        whole(POST + b"Authorization: Bearer a\r\nauthorization: Bearer b\r\n"),
        CLOSED,
    ),
    "two encodings": (
        whole(POST + b"Content-Encoding: identity\r\nContent-Encoding: gzip\r\n", INNER),
        [415, 200],
    ),
    "nothing acceptable in two headers": (
        whole(POST + b"Accept: text/plain\r\nAccept: text/html\r\n", INNER),
        [406, 200],
    ),
    "something acceptable in the second header": (
        whole(POST + b"Accept: text/plain\r\nAccept: application/json\r\n"),
        ANSWERED,
    ),
    # Versions
    "HTTP/0.9": (b"GET /graphql\r\n", CLOSED),
    "HTTP/0.9 by name": (get(QUERY, version=b"HTTP/0.9"), CLOSED),
    "HTTP/1.0": (whole(POST.replace(b"1.1", b"1.0")), [200]),
    "HTTP/1.0 kept alive": (
        whole(POST.replace(b"1.1", b"1.0") + b"Connection: keep-alive\r\n"),
        [200],
    ),
    "HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", CLOSED),
    "HTTP/2 by GET": (get(QUERY, version=b"HTTP/2.0"), CLOSED),
    "another version": (get(QUERY, version=b"HTTP/9.9"), CLOSED),
    "a version in small letters": (get(QUERY, version=b"http/1.1"), CLOSED),
    # Bodies that are not read
    "too long": (whole(POST, INNER * 16_000), [413, 200]),
    "too long in chunks": (chunks(POST, *[INNER * 4_000] * 4), [413, 200]),
    "too long, with an offer": (whole(POST + HTTP2, INNER * 16_000), [413, 200]),
    "another media type": (whole(POST.replace(b"json", b"xml"), INNER * 2_000), [415, 200]),
    "a body for nobody": (whole(POST.replace(b"/graphql", b"/nothing"), INNER * 2_000), [404, 200]),
    "closed by the client": (whole(POST + b"Connection: close\r\n") + INNER, [200]),
}


def statuses(received: bytes) -> list[int]:
    """The statuses of the answers, without those that only say to continue."""
    found = [int(status) for status in re.findall(rb"HTTP/1\.[01] (\d{3}) [A-Z]", received)]
    return [status for status in found if status != 100]
