/* The compiled part of bridge: pure functions, each with a Python twin that does the same.
 *
 * Rules, which tests hold where they can:
 *
 * - Bytes and plain values go in, values come out. No object of bridge's own is read or written, except those whose
 *   types are made here: request lines and heads, Times, and Counter, which adds to memory that it is given.
 * - Nothing here refuses anything. A function returns None for input that it does not fully understand. Then the Python
 *   function decides: only there are statuses, close codes and messages. This file raises only the interpreter's own
 *   exceptions (no memory, a wrong type).
 * - Input is read through one Py_buffer, which is released on each path. While it is held, nobody can change the size
 *   of a bytearray, whatever the garbage collector runs.
 * - A length is checked before anything is added to it. A position is compared with the end before a byte is read.
 * - Names of fields come from the fixed table below, or are fresh objects. Peers choose names: none is ever interned.
 * - The only state is that table and these types. They are made with the module and belong to it (PEP 489), so each
 *   interpreter has its own.
 */

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <structmember.h>

#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <time.h>
#ifdef __SSE2__
#include <emmintrin.h>
#endif

/* bridge/speedups.py uses the module only if this is the number that it expects. */
#define REVISION 10

/* ------------------------------------------------------------------------------------------------- the fixed table */

/* What a known field means for framing, persistence or the host. For HTTP/2: HOP, which no request may have there, and
 * the fields that are joined, are secret, or set the order of responses. */
enum {
    PLAIN, HOST, CONTENT_LENGTH, TRANSFER_ENCODING, CONNECTION, EXPECT, UPGRADE, HOP, TE, COOKIE, SECRET, PRIORITY
};

typedef struct {
    const char *name; /* in lower case */
    const char *key;  /* in an environ, if not made from the name; "" if an application must not see the field */
    int meaning;
} Known;

static const Known KNOWN[] = {
    {"host", NULL, HOST},
    {"content-length", "CONTENT_LENGTH", CONTENT_LENGTH},
    {"transfer-encoding", NULL, TRANSFER_ENCODING},
    {"connection", NULL, CONNECTION},
    {"expect", NULL, EXPECT},
    {"upgrade", NULL, UPGRADE},
    {"content-type", "CONTENT_TYPE", PLAIN},
    {"proxy", "", PLAIN}, /* CGI programs use HTTP_PROXY for requests of their own ("httpoxy") */
    {"accept", NULL, PLAIN},
    {"accept-charset", NULL, PLAIN},
    {"accept-encoding", NULL, PLAIN},
    {"accept-language", NULL, PLAIN},
    {"access-control-request-headers", NULL, PLAIN},
    {"access-control-request-method", NULL, PLAIN},
    {"authorization", NULL, SECRET},
    {"cache-control", NULL, PLAIN},
    {"cdn-loop", NULL, PLAIN},
    {"cf-connecting-ip", NULL, PLAIN},
    {"cf-ipcountry", NULL, PLAIN},
    {"cf-ray", NULL, PLAIN},
    {"cf-visitor", NULL, PLAIN},
    {"content-disposition", NULL, PLAIN},
    {"content-encoding", NULL, PLAIN},
    {"content-language", NULL, PLAIN},
    {"cookie", NULL, COOKIE},
    {"date", NULL, PLAIN},
    {"dnt", NULL, PLAIN},
    {"fastly-client-ip", NULL, PLAIN},
    {"forwarded", NULL, PLAIN},
    {"from", NULL, PLAIN},
    {"if-match", NULL, PLAIN},
    {"if-modified-since", NULL, PLAIN},
    {"if-none-match", NULL, PLAIN},
    {"if-range", NULL, PLAIN},
    {"if-unmodified-since", NULL, PLAIN},
    {"keep-alive", NULL, HOP},
    {"max-forwards", NULL, PLAIN},
    {"origin", NULL, PLAIN},
    {"pragma", NULL, PLAIN},
    {"priority", NULL, PRIORITY},
    {"proxy-authorization", NULL, SECRET},
    {"proxy-connection", NULL, HOP},
    {"purpose", NULL, PLAIN},
    {"range", NULL, PLAIN},
    {"referer", NULL, PLAIN},
    {"save-data", NULL, PLAIN},
    {"sec-ch-ua", NULL, PLAIN},
    {"sec-ch-ua-arch", NULL, PLAIN},
    {"sec-ch-ua-full-version-list", NULL, PLAIN},
    {"sec-ch-ua-mobile", NULL, PLAIN},
    {"sec-ch-ua-model", NULL, PLAIN},
    {"sec-ch-ua-platform", NULL, PLAIN},
    {"sec-ch-ua-platform-version", NULL, PLAIN},
    {"sec-fetch-dest", NULL, PLAIN},
    {"sec-fetch-mode", NULL, PLAIN},
    {"sec-fetch-site", NULL, PLAIN},
    {"sec-fetch-user", NULL, PLAIN},
    {"sec-gpc", NULL, PLAIN},
    {"sec-websocket-extensions", NULL, PLAIN},
    {"sec-websocket-key", NULL, PLAIN},
    {"sec-websocket-protocol", NULL, PLAIN},
    {"sec-websocket-version", NULL, PLAIN},
    {"te", NULL, TE},
    {"traceparent", NULL, PLAIN},
    {"tracestate", NULL, PLAIN},
    {"trailer", NULL, PLAIN},
    {"true-client-ip", NULL, PLAIN},
    {"upgrade-insecure-requests", NULL, PLAIN},
    {"user-agent", NULL, PLAIN},
    {"via", NULL, PLAIN},
    {"x-amzn-trace-id", NULL, PLAIN},
    {"x-api-key", NULL, PLAIN},
    {"x-b3-sampled", NULL, PLAIN},
    {"x-b3-spanid", NULL, PLAIN},
    {"x-b3-traceid", NULL, PLAIN},
    {"x-client-ip", NULL, PLAIN},
    {"x-cloud-trace-context", NULL, PLAIN},
    {"x-correlation-id", NULL, PLAIN},
    {"x-csrf-token", NULL, PLAIN},
    {"x-csrftoken", NULL, PLAIN},
    {"x-forwarded-for", NULL, PLAIN},
    {"x-forwarded-host", NULL, PLAIN},
    {"x-forwarded-port", NULL, PLAIN},
    {"x-forwarded-prefix", NULL, PLAIN},
    {"x-forwarded-proto", NULL, PLAIN},
    {"x-http-method-override", NULL, PLAIN},
    {"x-real-ip", NULL, PLAIN},
    {"x-request-id", NULL, PLAIN},
    {"x-requested-with", NULL, PLAIN},
    {"x-scheme", NULL, PLAIN},
    {"x-trace-id", NULL, PLAIN},
    {"x-xsrf-token", NULL, PLAIN},
};
#define KNOWN_COUNT ((int)(sizeof KNOWN / sizeof KNOWN[0]))
#define KNOWN_LENGTH_MAX 40 /* bytes; no known name is longer */
#define SLOTS 512           /* of the table, a power of two */
_Static_assert(KNOWN_COUNT < 255 && 2 * KNOWN_COUNT <= SLOTS, "an index fits an octet, and half of the slots are empty");

/* The Huffman code of field compression (RFC 7541 appendix B). It is canonical: codes of one length are consecutive
 * numbers in the order of their symbols. The end-of-string symbol, thirty ones, is not among them. */
static const struct {
    uint8_t bits;
    uint8_t count;
} HUFFMAN[] = {
    {5, 10}, {6, 26}, {7, 32}, {8, 6}, {10, 5}, {11, 3}, {12, 2}, {13, 6}, {14, 2}, {15, 3}, {19, 3},
    {20, 8}, {21, 13}, {22, 26}, {23, 29}, {24, 12}, {25, 4}, {26, 15}, {27, 19}, {28, 29}, {30, 3},
};
#define HUFFMAN_LENGTHS ((int)(sizeof HUFFMAN / sizeof HUFFMAN[0]))
#define HUFFMAN_SHORT 4 /* lengths of at most eight bits */
#define PAIR_BITS 12    /* the length of two codes of usual text, at most */
static const uint8_t HUFFMAN_ORDER[256] = {
    0x30, 0x31, 0x32, 0x61, 0x63, 0x65, 0x69, 0x6f, 0x73, 0x74, 0x20, 0x25, 0x2d, 0x2e, 0x2f, 0x33,
    0x34, 0x35, 0x36, 0x37, 0x38, 0x39, 0x3d, 0x41, 0x5f, 0x62, 0x64, 0x66, 0x67, 0x68, 0x6c, 0x6d,
    0x6e, 0x70, 0x72, 0x75, 0x3a, 0x42, 0x43, 0x44, 0x45, 0x46, 0x47, 0x48, 0x49, 0x4a, 0x4b, 0x4c,
    0x4d, 0x4e, 0x4f, 0x50, 0x51, 0x52, 0x53, 0x54, 0x55, 0x56, 0x57, 0x59, 0x6a, 0x6b, 0x71, 0x76,
    0x77, 0x78, 0x79, 0x7a, 0x26, 0x2a, 0x2c, 0x3b, 0x58, 0x5a, 0x21, 0x22, 0x28, 0x29, 0x3f, 0x27,
    0x2b, 0x7c, 0x23, 0x3e, 0x00, 0x24, 0x40, 0x5b, 0x5d, 0x7e, 0x5e, 0x7d, 0x3c, 0x60, 0x7b, 0x5c,
    0xc3, 0xd0, 0x80, 0x82, 0x83, 0xa2, 0xb8, 0xc2, 0xe0, 0xe2, 0x99, 0xa1, 0xa7, 0xac, 0xb0, 0xb1,
    0xb3, 0xd1, 0xd8, 0xd9, 0xe3, 0xe5, 0xe6, 0x81, 0x84, 0x85, 0x86, 0x88, 0x92, 0x9a, 0x9c, 0xa0,
    0xa3, 0xa4, 0xa9, 0xaa, 0xad, 0xb2, 0xb5, 0xb9, 0xba, 0xbb, 0xbd, 0xbe, 0xc4, 0xc6, 0xe4, 0xe8,
    0xe9, 0x01, 0x87, 0x89, 0x8a, 0x8b, 0x8c, 0x8d, 0x8f, 0x93, 0x95, 0x96, 0x97, 0x98, 0x9b, 0x9d,
    0x9e, 0xa5, 0xa6, 0xa8, 0xae, 0xaf, 0xb4, 0xb6, 0xb7, 0xbc, 0xbf, 0xc5, 0xe7, 0xef, 0x09, 0x8e,
    0x90, 0x91, 0x94, 0x9f, 0xab, 0xce, 0xd7, 0xe1, 0xec, 0xed, 0xc7, 0xcf, 0xea, 0xeb, 0xc0, 0xc1,
    0xc8, 0xc9, 0xca, 0xcd, 0xd2, 0xd5, 0xda, 0xdb, 0xee, 0xf0, 0xf2, 0xf3, 0xff, 0xcb, 0xcc, 0xd3,
    0xd4, 0xd6, 0xdd, 0xde, 0xdf, 0xf1, 0xf4, 0xf5, 0xf6, 0xf7, 0xf8, 0xfa, 0xfb, 0xfc, 0xfd, 0xfe,
    0x02, 0x03, 0x04, 0x05, 0x06, 0x07, 0x08, 0x0b, 0x0c, 0x0e, 0x0f, 0x10, 0x11, 0x12, 0x13, 0x14,
    0x15, 0x17, 0x18, 0x19, 0x1a, 0x1b, 0x1c, 0x1d, 0x1e, 0x1f, 0x7f, 0xdc, 0xf9, 0x0a, 0x0d, 0x16,
};

/* CONNECT is missing, since the Python function reads those requests. */
static const char *const METHODS[] = {"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE"};
#define METHODS_COUNT ((int)(sizeof METHODS / sizeof METHODS[0]))
#define METHOD_HEAD 1 /* the index of HEAD */

/* The keys of an environ that come from the request line. */
enum { REQUEST_METHOD, PATH_INFO, QUERY_STRING, REQUEST_URI, RAW_URI, SERVER_PROTOCOL, VARIABLES_COUNT };
static const char *const VARIABLES[] = {
    "REQUEST_METHOD", "PATH_INFO", "QUERY_STRING", "REQUEST_URI", "RAW_URI", "SERVER_PROTOCOL",
};
_Static_assert(sizeof VARIABLES / sizeof VARIABLES[0] == VARIABLES_COUNT, "each key has its text");

/* The forms of an HTTP version: octets, text, text with the name of the protocol. */
enum { V_OCTETS, V_TEXT, V_PROTOCOL, VERSION_FORMS };
static const char *const VERSIONS[] = {"1.0", "1.1"};
static const char *const PROTOCOLS[] = {"HTTP/1.0", "HTTP/1.1"};

/* The keys of a scope that differ between the requests of one connection. */
enum { S_HTTP_VERSION, S_METHOD, S_PATH, S_RAW_PATH, S_QUERY_STRING, S_ASGI, S_HEADERS, S_EXTENSIONS, SCOPE_KEYS_COUNT };
static const char *const SCOPE_KEYS[] = {
    "http_version", "method", "path", "raw_path", "query_string", "asgi", "headers", "extensions",
};
_Static_assert(sizeof SCOPE_KEYS / sizeof SCOPE_KEYS[0] == SCOPE_KEYS_COUNT, "each key has its text");
/* The dictionaries in a scope whose last copy is kept. */
enum { C_ASGI, C_EXTENSIONS, SCOPE_COPIES_COUNT };

/* Where frameworks leave the route, see bridge/telemetry/metrics/routes.py. */
static const char *const ROUTES[] = {"bridge.route", "route"};
#define ROUTES_COUNT ((int)(sizeof ROUTES / sizeof ROUTES[0]))

/* How many freed Times are kept: about as many as exchanges that are usually in progress at once. */
#define SPARES 32

typedef struct {
    PyObject *names[KNOWN_COUNT];         /* bytes */
    PyObject *keys[KNOWN_COUNT];          /* str; NULL if the application must not see the field */
    PyObject *variables[VARIABLES_COUNT]; /* str */
    PyObject *routes[ROUTES_COUNT];       /* str */
    PyObject *request;                    /* str: where werkzeug leaves its request */
    PyObject *empty;                      /* str */
    PyObject *nothing;                    /* float */
    PyObject *clock;                      /* time.monotonic_ns */
    PyObject *no_octets;                  /* bytes */
    PyObject *line_type;
    PyObject *head_type;
    PyObject *times_type;
    PyObject *spares[SPARES];             /* freed Times, whose memory the next ones take */
    int spares_count;
    PyObject *counter_type;
    PyObject *versions[2][VERSION_FORMS]; /* of 1.0 and of 1.1 */
    PyObject *scope_keys[SCOPE_KEYS_COUNT]; /* str */
    PyObject *scope_copies[SCOPE_COPIES_COUNT]; /* dict; see fresh_copy() */
    PyObject *methods[METHODS_COUNT];     /* bytes */
    PyObject *method_texts[METHODS_COUNT]; /* str */
    int host;                              /* the index of that name */
    uint8_t lengths[KNOWN_COUNT];
    char titles[KNOWN_COUNT][KNOWN_LENGTH_MAX]; /* the known names as most programs write them: User-Agent */
    uint8_t slots[SLOTS]; /* by hash: 1 + the index of a known name; 0 if there is none */
    /* The Huffman code: the first code and symbol of each length; the code at the start of each eight bits, if it is
     * short; and the same for two codes in a row. */
    uint32_t first_codes[HUFFMAN_LENGTHS];
    uint8_t first_symbols[HUFFMAN_LENGTHS];
    struct {
        uint8_t bits; /* 0 for a longer code */
        uint8_t symbol;
    } shorts[256];
    struct {
        uint8_t bits;  /* of both codes */
        uint8_t count; /* 0 if the first code is longer than eight bits */
        uint8_t symbols[2];
    } pairs[1 << PAIR_BITS];
} State;

static State *
state_of(PyObject *module)
{
    return (State *)PyModule_GetState(module);
}

static unsigned
name_hash(const unsigned char *name, size_t length)
{
    /* length is at least 1. Letters of either case have the same hash. */
    return (unsigned)(length * 7u + (name[0] | 0x20u) * 31u + (name[length - 1] | 0x20u) * 131u +
                      (name[length / 2] | 0x20u) * 17u) &
           (SLOTS - 1);
}

/* Return the index of a known name in lower case, or -1. */
static int
find_name(const State *state, const unsigned char *name, size_t length)
{
    if (length == 0 || length > KNOWN_LENGTH_MAX) {
        return -1;
    }
    for (unsigned slot = name_hash(name, length); state->slots[slot] != 0; slot = (slot + 1) & (SLOTS - 1)) {
        int index = state->slots[slot] - 1;
        if (state->lengths[index] == length && memcmp(KNOWN[index].name, name, length) == 0) {
            return index;
        }
    }
    return -1;
}

/* Return the index of a known name, written in lower case or with a capital at the start of each word; -1 for any other
 * name or spelling. */
static int
find_usual_name(const State *state, const unsigned char *name, size_t length)
{
    if (length == 0 || length > KNOWN_LENGTH_MAX) {
        return -1;
    }
    for (unsigned slot = name_hash(name, length); state->slots[slot] != 0; slot = (slot + 1) & (SLOTS - 1)) {
        int index = state->slots[slot] - 1;
        if (state->lengths[index] == length &&
            (memcmp(state->titles[index], name, length) == 0 || memcmp(KNOWN[index].name, name, length) == 0)) {
            return index;
        }
    }
    return -1;
}

/* ----------------------------------------------------------------------------------------------- octets and grammar */

/* Eight octets at once: an octet of the result has its highest bit set if the same octet of *block* is below *limit*
 * (at most 0x80), or is *octet*. After the first such octet the result has no meaning. */
#define ONES (~(uint64_t)0 / 255)
#define BELOW(block, limit) (((block)-ONES * (limit)) & ~(block) & (ONES * 0x80))
#define EQUAL(block, octet) BELOW((block) ^ (ONES * (octet)), 1)

/* Return how many octets lie before the first one that is marked. *marks* is not 0. */
static int
first_marked(uint64_t marks)
{
#if defined(__GNUC__) && PY_LITTLE_ENDIAN
    return __builtin_ctzll(marks) / 8;
#else
    (void)marks;
    return 0; /* the caller looks at each octet from here on */
#endif
}

/* tchar (RFC 9110 section 5.6.2) in lower case; 0 for any other octet. */
static const unsigned char TCHAR[256] = {
    ['!'] = '!', ['#'] = '#', ['$'] = '$', ['%'] = '%', ['&'] = '&', ['\''] = '\'', ['*'] = '*', ['+'] = '+',
    ['-'] = '-', ['.'] = '.', ['^'] = '^', ['_'] = '_', ['`'] = '`', ['|'] = '|', ['~'] = '~',
    ['0'] = '0', ['1'] = '1', ['2'] = '2', ['3'] = '3', ['4'] = '4', ['5'] = '5', ['6'] = '6', ['7'] = '7',
    ['8'] = '8', ['9'] = '9',
    ['a'] = 'a', ['b'] = 'b', ['c'] = 'c', ['d'] = 'd', ['e'] = 'e', ['f'] = 'f', ['g'] = 'g', ['h'] = 'h',
    ['i'] = 'i', ['j'] = 'j', ['k'] = 'k', ['l'] = 'l', ['m'] = 'm', ['n'] = 'n', ['o'] = 'o', ['p'] = 'p',
    ['q'] = 'q', ['r'] = 'r', ['s'] = 's', ['t'] = 't', ['u'] = 'u', ['v'] = 'v', ['w'] = 'w', ['x'] = 'x',
    ['y'] = 'y', ['z'] = 'z',
    ['A'] = 'a', ['B'] = 'b', ['C'] = 'c', ['D'] = 'd', ['E'] = 'e', ['F'] = 'f', ['G'] = 'g', ['H'] = 'h',
    ['I'] = 'i', ['J'] = 'j', ['K'] = 'k', ['L'] = 'l', ['M'] = 'm', ['N'] = 'n', ['O'] = 'o', ['P'] = 'p',
    ['Q'] = 'q', ['R'] = 'r', ['S'] = 's', ['T'] = 't', ['U'] = 'u', ['V'] = 'v', ['W'] = 'w', ['X'] = 'x',
    ['Y'] = 'y', ['Z'] = 'z',
};

static int
is_digit(unsigned char c)
{
    return c >= '0' && c <= '9';
}

static unsigned char
lower(unsigned char c)
{
    return c >= 'A' && c <= 'Z' ? (unsigned char)(c + 32) : c;
}

/* An octet of a request target: visible ASCII without "#". */
static int
is_target(unsigned char c)
{
    return c > 0x20 && c < 0x7f && c != '#';
}

/* An octet of a host that is a name or an IPv4 address, without "%" (RFC 3986 section 3.2.2). */
static int
is_host(unsigned char c)
{
    switch (c) {
    case '-': case '.': case '_': case '~': case '!': case '$': case '&': case '\'': case '(': case ')': case '*':
    case '+': case ';': case '=':
        return 1;
    default:
        return is_digit(c) || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
    }
}

static int
hex_value(unsigned char c)
{
    if (is_digit(c)) {
        return c - '0';
    }
    c = lower(c);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

typedef struct {
    const unsigned char *start;
    const unsigned char *end;
} Span;

static size_t
span_length(Span span)
{
    return (size_t)(span.end - span.start);
}

static Span
stripped(Span span)
{
    while (span.start < span.end && (*span.start == ' ' || *span.start == '\t')) {
        span.start++;
    }
    while (span.start < span.end && (span.end[-1] == ' ' || span.end[-1] == '\t')) {
        span.end--;
    }
    return span;
}

/* Tell whether *span* is *word* (lower case, with its length), in any case. */
static int
is_word(Span span, const char *word, size_t length)
{
    if (span_length(span) != length) {
        return 0;
    }
    for (size_t i = 0; i < length; i++) {
        if (lower(span.start[i]) != (unsigned char)word[i]) {
            return 0;
        }
    }
    return 1;
}
#define IS_WORD(span, word) is_word(span, word, sizeof(word) - 1)

static PyObject *
bytes_of(Span span)
{
    return PyBytes_FromStringAndSize((const char *)span.start, span.end - span.start);
}

static PyObject *
lower_bytes_of(Span span)
{
    PyObject *made = PyBytes_FromStringAndSize(NULL, span.end - span.start);
    if (made != NULL) {
        char *to = PyBytes_AS_STRING(made);
        for (size_t i = 0, length = span_length(span); i < length; i++) {
            to[i] = (char)lower(span.start[i]);
        }
    }
    return made;
}

static PyObject *
ascii_of(Span span)
{
    return PyUnicode_DecodeASCII((const char *)span.start, span.end - span.start, NULL);
}

static int
is_value_octet(unsigned char c)
{
    return c != 0x7f && (c >= 0x20 || c == '\t');
}

/* Return the first octet from *at* on that a field value may not have; *end* if there is none. */
static const unsigned char *
value_end(const unsigned char *at, const unsigned char *end)
{
    for (;;) {
#if defined(__SSE2__) && defined(__GNUC__)
        while (end - at >= 16) {
            __m128i block = _mm_loadu_si128((const __m128i *)(const void *)at);
            __m128i marks = _mm_or_si128(_mm_cmpeq_epi8(_mm_min_epu8(block, _mm_set1_epi8(0x1f)), block),
                                         _mm_cmpeq_epi8(block, _mm_set1_epi8(0x7f)));
            int found = _mm_movemask_epi8(marks);
            if (found) {
                at += __builtin_ctz((unsigned)found);
                if (*at != '\t') {
                    return at;
                }
                at++;
            } else {
                at += 16;
            }
        }
#endif
        while (end - at >= 8) {
            uint64_t block;
            memcpy(&block, at, 8);
            uint64_t marks = BELOW(block, 0x20) | EQUAL(block, 0x7f);
            if (marks) {
                at += first_marked(marks);
                break;
            }
            at += 8;
        }
        const unsigned char *stop = end - at > 8 ? at + 8 : end;
        while (at < stop && is_value_octet(*at)) {
            at++;
        }
        if (at < stop || at == end) {
            return at;
        }
    }
}

/* Return the first octet from *at* on that a request target may not have, or that is *last*; *end* if there is none. */
static const unsigned char *
target_end(const unsigned char *at, const unsigned char *end, unsigned char last)
{
    for (;;) {
        while (end - at >= 8) {
            uint64_t block;
            memcpy(&block, at, 8);
            uint64_t marks = BELOW(block, 0x21) | EQUAL(block, 0x7f) | EQUAL(block, '#') | EQUAL(block, last) |
                             (block & (ONES * 0x80));
            if (marks) {
                at += first_marked(marks);
                break;
            }
            at += 8;
        }
        const unsigned char *stop = end - at > 8 ? at + 8 : end;
        while (at < stop && is_target(*at) && *at != last) {
            at++;
        }
        if (at < stop || at == end) {
            return at;
        }
    }
}

/* --------------------------------------------------------------------------------------------------- request heads */

/* The Python function reads a head with more fields. */
#define FIELDS_MAX 128
/* The Python function reads a number with more digits. It is CONTENT_LENGTH_DIGITS there, and fits a long long. */
#define LENGTH_DIGITS 18
/* The Python function reads a longer path with percent signs. */
#define DECODED_MAX 1024

typedef struct {
    Span name; /* as received */
    Span value;
    int known; /* the index of a known name, or -1 */
} FieldLine;

typedef struct {
    Span method;
    Span target;
    Span path;
    Span query;
    int newer; /* 1.1, not 1.0 */
    FieldLine fields[FIELDS_MAX];
    int count;
    int host;                /* the index of the Host field, or -1 */
    long long content_length; /* -1 for chunked content */
    int keep_alive;
    int expect_continue;
    Span upgrade;
    Py_ssize_t size;
} Head;

/* Read a request line of the usual form. Return where the first field line begins, or NULL for any other form. */
static const unsigned char *
read_request_line(Head *head, const unsigned char *at, const unsigned char *end, Py_ssize_t most)
{
    static const char version[] = " HTTP/1.";
    const Py_ssize_t rest = (Py_ssize_t)sizeof version - 1 + 3; /* a digit, CR, LF */
    const unsigned char *start = at;

    head->method.start = at;
    while (at < end && TCHAR[*at] != 0) {
        at++;
    }
    head->method.end = at;
    if (at == start || end - at < 2 || at[0] != ' ' || at[1] != '/') {
        return NULL;
    }
    if (span_length(head->method) == 7 && memcmp(start, "CONNECT", 7) == 0) {
        return NULL;
    }
    at++;
    head->target.start = head->path.start = at;
    at = target_end(at, end, '?');
    head->path.end = head->query.start = head->query.end = at;
    if (at < end && *at == '?') {
        at++;
        head->query.start = at;
        at = target_end(at, end, ' ');
        head->query.end = at;
    }
    head->target.end = at;
    if (end - at < rest || memcmp(at, version, sizeof version - 1) != 0) {
        return NULL;
    }
    at += sizeof version - 1;
    if ((*at != '0' && *at != '1') || at[1] != '\r' || at[2] != '\n' || at + 1 - start > most) {
        return NULL;
    }
    head->newer = *at == '1';
    return at + 3;
}

/* Check a field's name, and look it up among the known ones in any case. Return 0 if it is not a field name. */
static int
read_name_slowly(FieldLine *field, const State *state)
{
    unsigned char name[KNOWN_LENGTH_MAX];
    size_t length = 0;
    for (const unsigned char *at = field->name.start; at < field->name.end; at++, length++) {
        unsigned char c = TCHAR[*at];
        if (c == 0) {
            return 0;
        }
        if (length < sizeof name) {
            name[length] = c;
        }
    }
    field->known = find_name(state, name, length);
    return length > 0;
}

/* Read the field lines up to the empty line. Return where the head ends, or NULL. */
static const unsigned char *
read_fields(Head *head, const State *state, const unsigned char *at, const unsigned char *end, Py_ssize_t longest,
            Py_ssize_t most)
{
    head->count = 0;
    for (;;) {
        if (end - at < 2) {
            return NULL;
        }
        if (at[0] == '\r') {
            return at[1] == '\n' ? at + 2 : NULL;
        }
        if (head->count == FIELDS_MAX || head->count >= most) {
            return NULL;
        }
        FieldLine *field = &head->fields[head->count++];
        const unsigned char *colon = memchr(at, ':', (size_t)(end - at));
        if (colon == NULL) {
            return NULL;
        }
        field->name = (Span){at, colon};
        field->known = find_usual_name(state, at, span_length(field->name));
        if (field->known < 0 && !read_name_slowly(field, state)) {
            return NULL;
        }
        field->value.start = colon + 1;
        at = value_end(colon + 1, end);
        field->value.end = at;
        if (end - at < 2 || at[0] != '\r' || at[1] != '\n' || at - field->name.start > longest) {
            return NULL;
        }
        field->value = stripped(field->value);
        at += 2;
    }
}

static int
is_usual_host(Span host)
{
    const unsigned char *at = host.start;
    while (at < host.end && is_host(*at)) {
        at++;
    }
    if (at == host.start) {
        return 0;
    }
    if (at < host.end && *at == ':') {
        at++;
        if (host.end - at > 5) {
            return 0;
        }
        while (at < host.end && is_digit(*at)) {
            at++;
        }
    }
    return at == host.end;
}

/* Decide what the steering fields ask for, as _steer() does. Return 0 if that function has to decide. */
static int
steer(Head *head)
{
    int lengths = 0, codings = 0, expects = 0, upgrades = 0;
    int close = 0, persist = 0, upgrade_option = 0;
    Span upgrade = {NULL, NULL};

    head->host = -1;
    head->content_length = 0;
    head->keep_alive = head->newer;
    head->expect_continue = 0;
    head->upgrade = upgrade;
    for (int i = 0; i < head->count; i++) {
        const FieldLine *field = &head->fields[i];
        switch (field->known < 0 ? PLAIN : KNOWN[field->known].meaning) {
        case HOST:
            if (head->host >= 0 || !is_usual_host(field->value)) {
                return 0;
            }
            head->host = i;
            break;
        case CONTENT_LENGTH: {
            size_t digits = span_length(field->value);
            if (lengths++ || codings || digits == 0 || digits > LENGTH_DIGITS) {
                return 0;
            }
            for (const unsigned char *at = field->value.start; at < field->value.end; at++) {
                if (!is_digit(*at)) {
                    return 0;
                }
                head->content_length = head->content_length * 10 + (*at - '0');
            }
            break;
        }
        case TRANSFER_ENCODING:
            if (codings++ || lengths || !head->newer || !IS_WORD(field->value, "chunked")) {
                return 0;
            }
            head->content_length = -1;
            break;
        case CONNECTION: {
            Span rest = field->value;
            while (rest.start < rest.end) {
                const unsigned char *comma = memchr(rest.start, ',', span_length(rest));
                Span option = stripped((Span){rest.start, comma == NULL ? rest.end : comma});
                close |= IS_WORD(option, "close");
                persist |= IS_WORD(option, "keep-alive");
                upgrade_option |= IS_WORD(option, "upgrade");
                rest.start = comma == NULL ? rest.end : comma + 1;
            }
            break;
        }
        case EXPECT:
            if (expects++ || !IS_WORD(field->value, "100-continue")) {
                return 0;
            }
            break;
        case UPGRADE:
            if (upgrades++ || memchr(field->value.start, ',', span_length(field->value)) != NULL) {
                return 0;
            }
            upgrade = field->value;
            break;
        default:
            break;
        }
    }
    if (head->host < 0 && head->newer) {
        return 0;
    }
    if (close) {
        head->keep_alive = 0;
    } else if (persist) {
        head->keep_alive = 1;
    }
    if (upgrade_option && head->newer) {
        head->upgrade = upgrade;
    }
    head->expect_continue = expects && head->newer && head->content_length != 0;
    return 1;
}

/* Tell whether *path* has a percent sign. */
static int
has_percent(Span path)
{
    return memchr(path.start, '%', span_length(path)) != NULL;
}

/* Decode *path* once into *decoded*, which has room for as many octets; return the new size. */
static Py_ssize_t
percent_decode(Span path, unsigned char *decoded)
{
    Py_ssize_t size = 0;
    int high, low;
    for (const unsigned char *at = path.start; at < path.end; size++) {
        if (*at == '%' && path.end - at > 2 && (high = hex_value(at[1])) >= 0 && (low = hex_value(at[2])) >= 0) {
            decoded[size] = (unsigned char)(high << 4 | low);
            at += 3;
        } else {
            decoded[size] = *at++;
        }
    }
    return size;
}

/* Return the path as text: percent-decoded once and read as UTF-8, with U+FFFD for octets that are not UTF-8. */
static PyObject *
path_text_of(Span path)
{
    if (!has_percent(path)) {
        return ascii_of(path);
    }
    unsigned char decoded[DECODED_MAX];
    Py_ssize_t size = percent_decode(path, decoded);
    return PyUnicode_DecodeUTF8((const char *)decoded, size, "replace");
}

/* Return the index of a known method, or -1. */
static int
find_method(Span method)
{
    for (int i = 0; i < METHODS_COUNT; i++) {
        if (strlen(METHODS[i]) == span_length(method) && memcmp(METHODS[i], method.start, span_length(method)) == 0) {
            return i;
        }
    }
    return -1;
}

static PyObject *
fields_of(const Head *head, const State *state)
{
    PyObject *fields = PyTuple_New(head->count);
    if (fields == NULL) {
        return NULL;
    }
    for (int i = 0; i < head->count; i++) {
        const FieldLine *field = &head->fields[i];
        PyObject *name = field->known < 0 ? lower_bytes_of(field->name) : Py_NewRef(state->names[field->known]);
        PyObject *value = name == NULL ? NULL : bytes_of(field->value);
        PyObject *pair = value == NULL ? NULL : PyTuple_New(2);
        if (pair == NULL) {
            Py_XDECREF(name);
            Py_XDECREF(value);
            Py_DECREF(fields);
            return NULL;
        }
        PyTuple_SET_ITEM(pair, 0, name);
        PyTuple_SET_ITEM(pair, 1, value);
        PyTuple_SET_ITEM(fields, i, pair);
    }
    return fields;
}

/* A request line and a request head. They have the attributes of those that bridge/core/http/message.py makes, and cannot
 * be changed. They hold octets, texts and numbers that were made here, so no cycle of references goes through them. */
enum {
    L_METHOD, L_METHOD_TEXT, L_TARGET, L_VERSION, L_VERSION_TEXT, L_PROTOCOL_TEXT, L_PATH, L_PATH_TEXT, L_QUERY,
    L_AUTHORITY, L_PLAIN, LINE_PARTS
};
enum {
    H_LINE, H_FIELDS, H_HOST, H_CONTENT_LENGTH, H_KEEP_ALIVE, H_EXPECT_CONTINUE, H_UPGRADE, H_SIZE, HEAD_PARTS
};

typedef struct {
    PyObject_HEAD
    PyObject *parts[LINE_PARTS];
} LineObject;

typedef struct {
    PyObject_HEAD
    PyObject *parts[HEAD_PARTS];
    /* Set by make_scope() for the next request with this head: the template, and a copy of it filled from the head. The
     * copy is NULL while the head has come only once. */
    PyObject *template;
    PyObject *scope;
} HeadObject;

#define PART(type, name, index)                                                                                        \
    {name, T_OBJECT_EX, offsetof(type, parts) + (index) * sizeof(PyObject *), READONLY, NULL}

static PyMemberDef line_members[] = {
    PART(LineObject, "method", L_METHOD),
    PART(LineObject, "method_text", L_METHOD_TEXT),
    PART(LineObject, "target", L_TARGET),
    PART(LineObject, "version", L_VERSION),
    PART(LineObject, "version_text", L_VERSION_TEXT),
    PART(LineObject, "protocol_text", L_PROTOCOL_TEXT),
    PART(LineObject, "path", L_PATH),
    PART(LineObject, "path_text", L_PATH_TEXT),
    PART(LineObject, "query", L_QUERY),
    PART(LineObject, "authority", L_AUTHORITY),
    PART(LineObject, "plain", L_PLAIN),
    {NULL, 0, 0, 0, NULL},
};

static PyMemberDef head_members[] = {
    PART(HeadObject, "line", H_LINE),
    PART(HeadObject, "fields", H_FIELDS),
    PART(HeadObject, "host", H_HOST),
    PART(HeadObject, "content_length", H_CONTENT_LENGTH),
    PART(HeadObject, "keep_alive", H_KEEP_ALIVE),
    PART(HeadObject, "expect_continue", H_EXPECT_CONTINUE),
    PART(HeadObject, "upgrade", H_UPGRADE),
    PART(HeadObject, "size", H_SIZE),
    {NULL, 0, 0, 0, NULL},
};

static PyObject *
part_of_line(PyObject *self, void *index)
{
    LineObject *line = (LineObject *)((HeadObject *)self)->parts[H_LINE];
    return Py_NewRef(line->parts[*(const int *)index]);
}

static const int of_line[] = {L_METHOD, L_TARGET, L_VERSION, L_PATH, L_QUERY};

static PyGetSetDef head_properties[] = {
    {"method", part_of_line, NULL, NULL, (void *)&of_line[0]},
    {"target", part_of_line, NULL, NULL, (void *)&of_line[1]},
    {"version", part_of_line, NULL, NULL, (void *)&of_line[2]},
    {"path", part_of_line, NULL, NULL, (void *)&of_line[3]},
    {"query", part_of_line, NULL, NULL, (void *)&of_line[4]},
    {NULL, NULL, NULL, NULL, NULL},
};

static void
line_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    for (int i = 0; i < LINE_PARTS; i++) {
        Py_XDECREF(((LineObject *)self)->parts[i]);
    }
    PyObject_Free(self);
    Py_DECREF(type);
}

static void
head_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    for (int i = 0; i < HEAD_PARTS; i++) {
        Py_XDECREF(((HeadObject *)self)->parts[i]);
    }
    Py_XDECREF(((HeadObject *)self)->template);
    Py_XDECREF(((HeadObject *)self)->scope);
    PyObject_Free(self);
    Py_DECREF(type);
}

static PyType_Slot line_slots[] = {
    {Py_tp_members, line_members},
    {Py_tp_dealloc, line_dealloc},
    {0, NULL},
};

static PyType_Slot head_slots[] = {
    {Py_tp_members, head_members},
    {Py_tp_getset, head_properties},
    {Py_tp_dealloc, head_dealloc},
    {0, NULL},
};

static PyType_Spec line_spec = {
    .name = "bridge._speedups.RequestLine",
    .basicsize = sizeof(LineObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = line_slots,
};

static PyType_Spec head_spec = {
    .name = "bridge._speedups.RequestHead",
    .basicsize = sizeof(HeadObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = head_slots,
};

/* Return 1 if all of *parts* were made. */
static int
is_whole(PyObject *const *parts, int count)
{
    for (int i = 0; i < count; i++) {
        if (parts[i] == NULL) {
            return 0;
        }
    }
    return 1;
}

static PyObject *
line_object(const Head *head, const State *state)
{
    LineObject *line = PyObject_New(LineObject, (PyTypeObject *)state->line_type);
    if (line == NULL) {
        return NULL;
    }
    PyObject **parts = line->parts;
    int method = find_method(head->method);
    parts[L_METHOD] = method < 0 ? bytes_of(head->method) : Py_NewRef(state->methods[method]);
    parts[L_METHOD_TEXT] = method < 0 ? ascii_of(head->method) : Py_NewRef(state->method_texts[method]);
    parts[L_TARGET] = bytes_of(head->target);
    parts[L_VERSION] = Py_NewRef(state->versions[head->newer][V_OCTETS]);
    parts[L_VERSION_TEXT] = Py_NewRef(state->versions[head->newer][V_TEXT]);
    parts[L_PROTOCOL_TEXT] = Py_NewRef(state->versions[head->newer][V_PROTOCOL]);
    parts[L_PATH] =
        span_length(head->path) == span_length(head->target) ? Py_XNewRef(parts[L_TARGET]) : bytes_of(head->path);
    parts[L_PATH_TEXT] = path_text_of(head->path);
    parts[L_QUERY] = bytes_of(head->query);
    parts[L_AUTHORITY] = Py_NewRef(state->no_octets);
    parts[L_PLAIN] = PyBool_FromLong(head->newer && method != METHOD_HEAD);
    if (!is_whole(parts, LINE_PARTS)) {
        Py_DECREF(line);
        return NULL;
    }
    return (PyObject *)line;
}

static PyObject *
head_object(const Head *head, const State *state)
{
    HeadObject *made = PyObject_New(HeadObject, (PyTypeObject *)state->head_type);
    if (made == NULL) {
        return NULL;
    }
    made->template = made->scope = NULL;
    PyObject **parts = made->parts;
    PyObject *fields = fields_of(head, state);
    PyObject *host = state->no_octets;
    if (fields != NULL && head->host >= 0) {
        host = PyTuple_GET_ITEM(PyTuple_GET_ITEM(fields, head->host), 1);
    }
    parts[H_LINE] = line_object(head, state);
    parts[H_FIELDS] = fields;
    parts[H_HOST] = Py_NewRef(host);
    parts[H_CONTENT_LENGTH] =
        head->content_length < 0 ? Py_NewRef(Py_None) : PyLong_FromLongLong(head->content_length);
    parts[H_KEEP_ALIVE] = PyBool_FromLong(head->keep_alive);
    parts[H_EXPECT_CONTINUE] = PyBool_FromLong(head->expect_continue);
    parts[H_UPGRADE] = lower_bytes_of(head->upgrade);
    parts[H_SIZE] = PyLong_FromSsize_t(head->size);
    if (!is_whole(parts, HEAD_PARTS)) {
        Py_DECREF(made);
        return NULL;
    }
    return (PyObject *)made;
}

/* Read *count* sizes from *args*. Return -1 with an exception if one is negative or not a number. */
static int
take_sizes(PyObject *const *args, Py_ssize_t *sizes, int count)
{
    for (int i = 0; i < count; i++) {
        sizes[i] = PyLong_AsSsize_t(args[i]);
        if (sizes[i] == -1 && PyErr_Occurred()) {
            return -1;
        }
        if (sizes[i] < 0) {
            PyErr_SetString(PyExc_ValueError, "a size or position is negative");
            return -1;
        }
    }
    return 0;
}

/* Read octets and *count* sizes, the arguments of the function *name*. For other arguments return -1 with an exception;
 * then no buffer is held. */
static int
take_octets_and_sizes(const char *name, PyObject *const *args, Py_ssize_t nargs, Py_buffer *buffer, Py_ssize_t *sizes,
                      int count)
{
    if (nargs != count + 1) {
        PyErr_Format(PyExc_TypeError, "%s() takes %d arguments", name, count + 1);
        return -1;
    }
    return take_sizes(args + 1, sizes, count) < 0 ? -1 : PyObject_GetBuffer(args[0], buffer, PyBUF_SIMPLE);
}

PyDoc_STRVAR(parse_head_doc,
             "parse_head(buffer, start, limits, /)\n--\n\n"
             "Return the request head that begins at start; None for the Python function to decide.\n\n"
             "The limits are those of request line, field line, fields and head: a tuple of four numbers.");

static PyObject *
parse_head(PyObject *module, PyObject *const *args, Py_ssize_t nargs)
{
    Py_ssize_t begin;
    Py_ssize_t sizes[4]; /* of request line, field line, fields, head */
    Py_buffer buffer;
    const State *state = state_of(module);

    if (nargs != 3 || !PyTuple_CheckExact(args[2]) || PyTuple_GET_SIZE(args[2]) != 4) {
        PyErr_SetString(PyExc_TypeError, "parse_head: buffer, start, a tuple of four limits");
        return NULL;
    }
    if (take_sizes(args + 1, &begin, 1) < 0 || take_sizes(&PyTuple_GET_ITEM(args[2], 0), sizes, 4) < 0 ||
        PyObject_GetBuffer(args[0], &buffer, PyBUF_SIMPLE) < 0) {
        return NULL;
    }
    if (begin < buffer.len) {
        const unsigned char *start = (const unsigned char *)buffer.buf + begin;
        const unsigned char *end = (const unsigned char *)buffer.buf + buffer.len;
        Head head;
        const unsigned char *at = read_request_line(&head, start, end, sizes[0]);
        if (at != NULL && (at = read_fields(&head, state, at, end, sizes[1], sizes[2])) != NULL &&
            at - start <= sizes[3] && steer(&head) &&
            (span_length(head.path) <= DECODED_MAX || !has_percent(head.path))) {
            head.size = at - start;
            PyObject *made = head_object(&head, state);
            PyBuffer_Release(&buffer);
            return made;
        }
    }
    PyBuffer_Release(&buffer);
    Py_RETURN_NONE;
}

/* ----------------------------------------------------------------------------------------------------------- scopes */

/* Return 1 if two dictionaries have the same objects as keys and values, in the same order. */
static int
has_same_items(PyObject *one, PyObject *other)
{
    PyObject *key, *value, *other_key, *other_value;
    Py_ssize_t at = 0, other_at = 0;
    if (PyDict_GET_SIZE(one) != PyDict_GET_SIZE(other)) {
        return 0;
    }
    while (PyDict_Next(one, &at, &key, &value)) {
        if (!PyDict_Next(other, &other_at, &other_key, &other_value) || key != other_key || value != other_value) {
            return 0;
        }
    }
    return 1;
}

/* Return a copy of *source*. The *last* copy is used again if nothing else refers to it and it is unchanged. Few
 * applications change or keep these copies, and making and freeing two for each request takes 3 % of a plain one. */
static PyObject *
fresh_copy(PyObject *source, PyObject **last)
{
    if (*last != NULL && Py_REFCNT(*last) == 1 && has_same_items(*last, source)) {
        return Py_NewRef(*last);
    }
    PyObject *copy = PyDict_Copy(source);
    if (copy != NULL) {
        Py_XSETREF(*last, Py_NewRef(copy));
    }
    return copy;
}

/* Return a copy of *template*, filled from *head*. */
static PyObject *
scope_of_head(const State *state, PyObject *template, const HeadObject *head)
{
    PyObject *const *line = ((LineObject *)head->parts[H_LINE])->parts;
    PyObject *scope = PyDict_Copy(template);
    if (scope != NULL && (PyDict_SetItem(scope, state->scope_keys[S_HTTP_VERSION], line[L_VERSION_TEXT]) < 0 ||
                          PyDict_SetItem(scope, state->scope_keys[S_METHOD], line[L_METHOD_TEXT]) < 0 ||
                          PyDict_SetItem(scope, state->scope_keys[S_PATH], line[L_PATH_TEXT]) < 0 ||
                          PyDict_SetItem(scope, state->scope_keys[S_RAW_PATH], line[L_PATH]) < 0 ||
                          PyDict_SetItem(scope, state->scope_keys[S_QUERY_STRING], line[L_QUERY]) < 0)) {
        Py_CLEAR(scope);
    }
    return scope;
}

/* Return the same, and keep a copy in a head that comes a second time: a client that polls, or a load balancer's health
 * check, sends it many more times. The kept copy is never handed out. */
static PyObject *
scope_of_known_head(const State *state, PyObject *template, HeadObject *head)
{
    if (head->template != template) {
        Py_XSETREF(head->template, Py_NewRef(template));
        Py_CLEAR(head->scope);
    } else if (head->scope == NULL && (head->scope = scope_of_head(state, template, head)) == NULL) {
        return NULL;
    }
    return head->scope == NULL ? scope_of_head(state, template, head) : PyDict_Copy(head->scope);
}

PyDoc_STRVAR(make_scope_doc,
             "make_scope(template, head, asgi, extensions, /)\n--\n\n"
             "Return a copy of the template with the request's line and fields, and copies of the two dictionaries.\n\n"
             "None for the Python function to decide, as for a head that parse_head() has not made.");

static PyObject *
make_scope(PyObject *module, PyObject *const *args, Py_ssize_t nargs)
{
    State *state = state_of(module);
    if (nargs != 4) {
        PyErr_SetString(PyExc_TypeError, "make_scope() takes 4 arguments");
        return NULL;
    }
    if (!PyDict_CheckExact(args[0]) || !Py_IS_TYPE(args[1], (PyTypeObject *)state->head_type) ||
        !PyDict_CheckExact(args[2]) || !PyDict_CheckExact(args[3])) {
        Py_RETURN_NONE;
    }
    HeadObject *head = (HeadObject *)args[1];
    PyObject *asgi = fresh_copy(args[2], &state->scope_copies[C_ASGI]);
    PyObject *extensions = fresh_copy(args[3], &state->scope_copies[C_EXTENSIONS]);
    PyObject *fields = PySequence_List(head->parts[H_FIELDS]);
    PyObject *scope = NULL;
    if (asgi != NULL && extensions != NULL && fields != NULL) {
        scope = scope_of_known_head(state, args[0], head);
    }
    if (scope != NULL && (PyDict_SetItem(scope, state->scope_keys[S_ASGI], asgi) < 0 ||
                          PyDict_SetItem(scope, state->scope_keys[S_HEADERS], fields) < 0 ||
                          PyDict_SetItem(scope, state->scope_keys[S_EXTENSIONS], extensions) < 0)) {
        Py_CLEAR(scope);
    }
    Py_XDECREF(asgi);
    Py_XDECREF(extensions);
    Py_XDECREF(fields);
    return scope;
}

/* --------------------------------------------------------------------------------------------------------- environs */

/* Return the environ key of a field as a new reference.
 *
 * Return NULL and set *left_out* if the application must not see the field. Return NULL without that and without an
 * exception if the Python function has to decide.
 */
static PyObject *
environ_key(const State *state, PyObject *name, int *left_out)
{
    const unsigned char *octets = (const unsigned char *)PyBytes_AS_STRING(name);
    Py_ssize_t length = PyBytes_GET_SIZE(name);
    int known = find_name(state, octets, (size_t)length);
    *left_out = 0;
    if (known >= 0) {
        *left_out = state->keys[known] == NULL;
        return Py_XNewRef(state->keys[known]);
    }
    if (length > PY_SSIZE_T_MAX - 5) {
        return NULL;
    }
    for (Py_ssize_t i = 0; i < length; i++) {
        if (octets[i] >= 0x80) {
            return NULL;
        }
        if (octets[i] == '_') { /* "x_a" and "x-a" would have one key */
            *left_out = 1;
            return NULL;
        }
    }
    PyObject *key = PyUnicode_New(length + 5, 0x7f);
    if (key == NULL) {
        return NULL;
    }
    Py_UCS1 *to = PyUnicode_1BYTE_DATA(key);
    memcpy(to, "HTTP_", 5);
    to += 5;
    for (Py_ssize_t i = 0; i < length; i++) {
        unsigned char c = octets[i];
        to[i] = c == '-' ? '_' : c >= 'a' && c <= 'z' ? (Py_UCS1)(c - 32) : c;
    }
    return key;
}

/* Append *text* to the value of environ[key] (RFC 9110 section 5.3, RFC 9113 section 8.2.3).
 *
 * Return 1; 0 if the Python function has to decide; -1 with an exception.
 */
static int
join_value(PyObject *environ, PyObject *key, PyObject *text)
{
    PyObject *before = PyDict_GetItemWithError(environ, key);
    if (before == NULL || !PyUnicode_Check(before)) {
        return PyErr_Occurred() ? -1 : 0;
    }
    int cookie = PyUnicode_CompareWithASCIIString(key, "HTTP_COOKIE") == 0;
    PyObject *joined = PyUnicode_FromFormat(cookie ? "%U; %U" : "%U, %U", before, text);
    if (joined == NULL) {
        return -1;
    }
    int failed = PyDict_SetItem(environ, key, joined);
    Py_DECREF(joined);
    return failed < 0 ? -1 : 1;
}

/* Set one field in *environ*; the results are those of join_value(). */
static int
set_field(const State *state, PyObject *environ, PyObject *field)
{
    if (!PyTuple_CheckExact(field) || PyTuple_GET_SIZE(field) != 2) {
        return 0;
    }
    PyObject *name = PyTuple_GET_ITEM(field, 0);
    PyObject *value = PyTuple_GET_ITEM(field, 1);
    if (!PyBytes_CheckExact(name) || !PyBytes_CheckExact(value)) {
        return 0;
    }
    int left_out;
    PyObject *key = environ_key(state, name, &left_out);
    if (key == NULL) {
        return PyErr_Occurred() ? -1 : left_out;
    }
    PyObject *text = PyUnicode_DecodeLatin1(PyBytes_AS_STRING(value), PyBytes_GET_SIZE(value), NULL);
    if (text == NULL) {
        Py_DECREF(key);
        return -1;
    }
    /* The size tells whether the key was there, not the object: equal one-character texts are the same object. */
    Py_ssize_t size = PyDict_GET_SIZE(environ);
    int done = PyDict_SetDefault(environ, key, text) == NULL ? -1 : 1;
    if (done > 0 && PyDict_GET_SIZE(environ) == size) {
        done = join_value(environ, key, text);
    }
    Py_DECREF(key);
    Py_DECREF(text);
    return done;
}

/* The arguments of make_environ(). */
enum { E_TEMPLATE, E_FIELDS, E_METHOD, E_PATH, E_QUERY, E_TARGET, E_PROTOCOL, E_COUNT };

static PyObject *
latin1_of(PyObject *octets)
{
    return PyUnicode_DecodeLatin1(PyBytes_AS_STRING(octets), PyBytes_GET_SIZE(octets), NULL);
}

/* Set environ[key] to *text*, and take over its reference; it may be NULL. Return -1 with an exception on failure. */
static int
set_text(PyObject *environ, PyObject *key, PyObject *text)
{
    int failed = text == NULL ? -1 : PyDict_SetItem(environ, key, text);
    Py_XDECREF(text);
    return failed;
}

/* Set what comes from the request line. The results are those of join_value(). */
static int
set_line(const State *state, PyObject *environ, PyObject *const *args)
{
    PyObject *octets = args[E_PATH];
    Span path = {(const unsigned char *)PyBytes_AS_STRING(octets),
                 (const unsigned char *)PyBytes_AS_STRING(octets) + PyBytes_GET_SIZE(octets)};
    PyObject *info;
    if (has_percent(path)) {
        unsigned char decoded[DECODED_MAX];
        if (span_length(path) > DECODED_MAX) {
            return 0;
        }
        Py_ssize_t size = percent_decode(path, decoded);
        info = PyUnicode_DecodeLatin1((const char *)decoded, size, NULL);
    } else {
        info = latin1_of(octets);
    }
    PyObject *target = latin1_of(args[E_TARGET]);
    int failed = set_text(environ, state->variables[PATH_INFO], info) < 0 ||
                 set_text(environ, state->variables[QUERY_STRING], latin1_of(args[E_QUERY])) < 0 || target == NULL ||
                 PyDict_SetItem(environ, state->variables[REQUEST_URI], target) < 0 ||
                 PyDict_SetItem(environ, state->variables[RAW_URI], target) < 0 ||
                 PyDict_SetItem(environ, state->variables[REQUEST_METHOD], args[E_METHOD]) < 0 ||
                 PyDict_SetItem(environ, state->variables[SERVER_PROTOCOL], args[E_PROTOCOL]) < 0;
    Py_XDECREF(target);
    return failed ? -1 : 1;
}

PyDoc_STRVAR(make_environ_doc,
             "make_environ(template, fields, method, path, query, target, protocol, /)\n--\n\n"
             "Return a copy of template with the fields of a header section, and what comes from a request line.\n\n"
             "None for the Python function to decide.");

static PyObject *
make_environ(PyObject *module, PyObject *const *args, Py_ssize_t nargs)
{
    const State *state = state_of(module);

    if (nargs != E_COUNT || !PyDict_CheckExact(args[E_TEMPLATE]) || !PyTuple_CheckExact(args[E_FIELDS]) ||
        !PyUnicode_CheckExact(args[E_METHOD]) || !PyBytes_CheckExact(args[E_PATH]) ||
        !PyBytes_CheckExact(args[E_QUERY]) || !PyBytes_CheckExact(args[E_TARGET]) ||
        !PyUnicode_CheckExact(args[E_PROTOCOL])) {
        PyErr_SetString(PyExc_TypeError, "make_environ() takes a dictionary, a tuple of fields, and a line's parts");
        return NULL;
    }
    PyObject *environ = PyDict_Copy(args[E_TEMPLATE]);
    if (environ == NULL) {
        return NULL;
    }
    int done = 1;
    for (Py_ssize_t i = 0; done > 0 && i < PyTuple_GET_SIZE(args[E_FIELDS]); i++) {
        done = set_field(state, environ, PyTuple_GET_ITEM(args[E_FIELDS], i));
    }
    if (done > 0) {
        done = set_line(state, environ, args);
    }
    if (done > 0) {
        return environ;
    }
    Py_DECREF(environ);
    if (done < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

/* ------------------------------------------------------------------------------------------------------- WebSocket */

/* XOR *size* octets with the four of *key*, repeated (RFC 6455 section 5.3). */
static void
mask(const unsigned char *from, unsigned char *to, size_t size, const unsigned char *key)
{
    unsigned char twice[8];
    uint64_t wide, block;
    size_t i = 0;

    memcpy(twice, key, 4);
    memcpy(twice + 4, key, 4);
    memcpy(&wide, twice, 8);
    for (; size - i >= 8; i += 8) {
        memcpy(&block, from + i, 8);
        block ^= wide;
        memcpy(to + i, &block, 8);
    }
    for (; i < size; i++) {
        to[i] = from[i] ^ key[i & 3];
    }
}

PyDoc_STRVAR(apply_mask_doc, "apply_mask(data, key, /)\n--\n\nReturn data XORed with the four bytes of key, repeated.");

static PyObject *
apply_mask(PyObject *module, PyObject *const *args, Py_ssize_t nargs)
{
    Py_buffer buffer;

    if (nargs != 2 || !PyBytes_CheckExact(args[1]) || PyBytes_GET_SIZE(args[1]) != 4) {
        PyErr_SetString(PyExc_TypeError, "apply_mask() takes data and a key of four bytes");
        return NULL;
    }
    if (PyObject_GetBuffer(args[0], &buffer, PyBUF_SIMPLE) < 0) {
        return NULL;
    }
    PyObject *masked = PyBytes_FromStringAndSize(NULL, buffer.len);
    if (masked != NULL) {
        mask((const unsigned char *)buffer.buf, (unsigned char *)PyBytes_AS_STRING(masked), (size_t)buffer.len,
             (const unsigned char *)PyBytes_AS_STRING(args[1]));
    }
    PyBuffer_Release(&buffer);
    return masked;
}

/* A text of up to this many bytes is unmasked on the stack and needs no object of bytes. */
#define TEXT_ON_STACK 1024
#define WHOLE_TEXT 0x81

/* Return the payload, unmasked: str for a whole message of text, else bytes. NULL if that fails. */
static PyObject *
unmasked_payload(int first, const unsigned char *from, size_t size, const unsigned char *key)
{
    if (first == WHOLE_TEXT && size <= TEXT_ON_STACK) {
        unsigned char text[TEXT_ON_STACK];
        mask(from, text, size, key);
        return PyUnicode_DecodeUTF8((const char *)text, (Py_ssize_t)size, NULL);
    }
    PyObject *payload = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)size);
    if (payload == NULL) {
        return NULL;
    }
    mask(from, (unsigned char *)PyBytes_AS_STRING(payload), size, key);
    if (first == WHOLE_TEXT) {
        PyObject *text = PyUnicode_DecodeUTF8(PyBytes_AS_STRING(payload), (Py_ssize_t)size, NULL);
        Py_DECREF(payload);
        return text;
    }
    return payload;
}

PyDoc_STRVAR(read_frame_doc,
             "read_frame(data, position, room, /)\n--\n\n"
             "Return (first byte, payload, end) of the complete masked frame at position.\n\n"
             "The payload is unmasked; that of a whole text message is str. None for the Python function to decide: an\n"
             "incomplete frame, one without mask, a payload longer than room (bytes), a wrong form.");

static PyObject *
read_frame(PyObject *module, PyObject *const *args, Py_ssize_t nargs)
{
    Py_ssize_t sizes[2]; /* position, room */
    Py_buffer buffer;

    if (take_octets_and_sizes("read_frame", args, nargs, &buffer, sizes, 2) < 0) {
        return NULL;
    }
    PyObject *frame = NULL;
    int understood = 0;
    if (sizes[0] <= buffer.len && buffer.len - sizes[0] >= 6) {
        const unsigned char *start = (const unsigned char *)buffer.buf + sizes[0];
        const unsigned char *at = start + 2;
        uint64_t left = (uint64_t)(buffer.len - sizes[0]) - 2;
        uint64_t length = start[1] & 0x7f;
        int extended = length == 126 ? 2 : length == 127 ? 8 : 0;
        if (extended && left >= (uint64_t)extended) {
            length = 0;
            for (int i = 0; i < extended; i++) {
                length = length << 8 | *at++;
            }
            left -= (uint64_t)extended;
            understood = length >= (extended == 2 ? 126u : 0x10000u) && !(start[0] & 0x08);
        } else {
            understood = !extended;
        }
        understood = understood && (start[1] & 0x80) && left >= 4 && length <= left - 4 && length <= (uint64_t)sizes[1];
        if (understood) {
            PyObject *payload = unmasked_payload(start[0], at + 4, (size_t)length, at);
            if (payload != NULL) {
                frame = Py_BuildValue("iNn", (int)start[0], payload,
                                      sizes[0] + (Py_ssize_t)(at - start) + 4 + (Py_ssize_t)length);
            } else if (PyErr_ExceptionMatches(PyExc_UnicodeDecodeError)) {
                PyErr_Clear(); /* the Python function says what is wrong with the text */
                understood = 0;
            }
        }
    }
    PyBuffer_Release(&buffer);
    if (!understood) {
        Py_RETURN_NONE;
    }
    return frame;
}

/* --------------------------------------------------------------------------------------------- fields of HTTP/2 */

static uint64_t
eight_octets(const unsigned char *at)
{
    return (uint64_t)at[0] << 56 | (uint64_t)at[1] << 48 | (uint64_t)at[2] << 40 | (uint64_t)at[3] << 32 |
           (uint64_t)at[4] << 24 | (uint64_t)at[5] << 16 | (uint64_t)at[6] << 8 | at[7];
}

/* Find the code of more than eight bits at the start (highest bits) of *window*. Return its length; 0 for none. */
static unsigned
long_code(const State *state, uint64_t window, unsigned char *symbol)
{
    for (int i = HUFFMAN_SHORT; i < HUFFMAN_LENGTHS; i++) {
        uint32_t behind = (uint32_t)(window >> (64 - HUFFMAN[i].bits)) - state->first_codes[i];
        if (behind < HUFFMAN[i].count) {
            *symbol = HUFFMAN_ORDER[state->first_symbols[i] + behind];
            return HUFFMAN[i].bits;
        }
    }
    return 0;
}

/* Decode a Huffman coded string (RFC 7541 section 5.2) into *to*. Return the number of octets; -1 if it is malformed.
 *
 * *to* has room for size * 8 / 5 octets, since no code is shorter than five bits, and for one more.
 */
static Py_ssize_t
huffman_decode(const State *state, const unsigned char *from, size_t size, unsigned char *to)
{
    const unsigned char *end = from + size;
    uint64_t window = 0; /* its highest *have* bits are to be decoded */
    unsigned have = 0;
    unsigned char *made = to;

    for (;;) {
        if (end - from >= 8) { /* bits of the last octet that is not taken as a whole come again, and are the same */
            window |= eight_octets(from) >> have;
            from += (63 - have) >> 3;
            have |= 56;
        } else {
            while (have <= 56 && from < end) {
                window |= (uint64_t)*from++ << (56 - have);
                have += 8;
            }
        }
        /* While there are enough bits for the longest code, none can be cut off. */
        while (have >= 30) {
            size_t pair = window >> (64 - PAIR_BITS);
            unsigned length = state->pairs[pair].bits;
            if (state->pairs[pair].count > 0) {
                made[0] = state->pairs[pair].symbols[0];
                made[1] = state->pairs[pair].symbols[1]; /* there is room, and the next one overwrites it */
                made += state->pairs[pair].count;
            } else if ((length = long_code(state, window, made++)) == 0) {
                return -1; /* the end-of-string symbol */
            }
            window <<= length;
            have -= length;
        }
        if (from == end) {
            break;
        }
    }
    /* Fill up with ones behind the end, as padding does. */
    window |= have == 0 ? UINT64_MAX : UINT64_MAX >> have;
    while (have > 0) {
        unsigned length = state->shorts[window >> 56].bits;
        unsigned char symbol = state->shorts[window >> 56].symbol;
        if (length == 0) {
            length = long_code(state, window, &symbol);
        }
        if (length == 0 || length > have) {
            /* Padding, or a code that is cut off. */
            return have < 8 && window == UINT64_MAX ? made - to : -1;
        }
        *made++ = symbol;
        window = window << length | (((uint64_t)1 << length) - 1);
        have -= length;
    }
    return made - to;
}

static void
fill_huffman(State *state)
{
    uint32_t code = 0;
    int symbol = 0, length = 0;
    for (int i = 0; i < HUFFMAN_LENGTHS; i++) {
        code <<= HUFFMAN[i].bits - length;
        length = HUFFMAN[i].bits;
        state->first_codes[i] = code;
        state->first_symbols[i] = (uint8_t)symbol;
        for (int n = 0; n < HUFFMAN[i].count; n++, code++, symbol++) {
            for (int rest = 0; length <= 8 && rest < 1 << (8 - length); rest++) {
                state->shorts[(code << (8 - length)) + (uint32_t)rest].bits = (uint8_t)length;
                state->shorts[(code << (8 - length)) + (uint32_t)rest].symbol = HUFFMAN_ORDER[symbol];
            }
        }
    }
    for (unsigned pair = 0; pair < 1 << PAIR_BITS; pair++) {
        unsigned bits = 0, count = 0;
        while (count < 2) {
            unsigned rest = (pair << bits & ((1 << PAIR_BITS) - 1)) >> (PAIR_BITS - 8);
            if (state->shorts[rest].bits == 0 || bits + state->shorts[rest].bits > PAIR_BITS) {
                break;
            }
            state->pairs[pair].symbols[count++] = state->shorts[rest].symbol;
            bits += state->shorts[rest].bits;
        }
        state->pairs[pair].bits = (uint8_t)bits;
        state->pairs[pair].count = (uint8_t)count;
    }
}

/* What an entry takes besides its octets, the index of the newest dynamic entry, and what a block may insert here. */
#define ENTRY_OVERHEAD 32
#define NEWEST 62
#define INSERTED_MAX 128
/* The Python function decodes a Huffman coded string of more octets. */
#define CODED_MAX 4096
#define DECODED_STRING_MAX (CODED_MAX * 8 / 5 + 1)

/* A field block that is being decoded. The table changes only after success: until then the inserted entries are kept
 * here, and the evicted ones are only counted. */
typedef struct {
    const State *state;
    const unsigned char *at;
    const unsigned char *end;
    PyObject *table;
    Py_ssize_t kept;                  /* dynamic entries of the table that are not evicted */
    PyObject *inserted[INSERTED_MAX]; /* oldest first */
    int inserted_count;
    int inserted_evicted; /* how many of them are evicted again, from the oldest on */
    Py_ssize_t size;      /* of the dynamic table */
    Py_ssize_t capacity;
} Block;

/* Read an integer with a prefix of *bits* bits of the octet at the position (5.1). Return -1 if it is malformed. */
static Py_ssize_t
read_integer(Block *block, int bits)
{
    uint64_t most = ((uint64_t)1 << bits) - 1;
    uint64_t value = *block->at++ & most;
    if (value < most) {
        return (Py_ssize_t)value;
    }
    for (int shift = 0; shift <= 28; shift += 7) {
        if (block->at == block->end) {
            return -1;
        }
        unsigned char octet = *block->at++;
        value += (uint64_t)(octet & 0x7f) << shift;
        if (octet < 0x80) {
            return value <= PY_SSIZE_T_MAX ? (Py_ssize_t)value : -1;
        }
    }
    return -1;
}

/* Read a string. Return 0 if it is malformed, or too long for this function.
 *
 * Its octets are those of the block, or *decoded*, which has room for DECODED_STRING_MAX.
 */
static int
read_octets(Block *block, Span *string, unsigned char *decoded)
{
    if (block->at == block->end) {
        return 0;
    }
    int coded = *block->at & 0x80;
    Py_ssize_t length = read_integer(block, 7);
    if (length < 0 || length > block->end - block->at) {
        return 0;
    }
    string->start = block->at;
    string->end = block->at += length;
    if (coded) {
        Py_ssize_t size = length > CODED_MAX ? -1 : huffman_decode(block->state, string->start, (size_t)length, decoded);
        if (size < 0) {
            return 0;
        }
        string->start = decoded;
        string->end = decoded + size;
    }
    return 1;
}

/* Return a value as bytes; NULL without an exception if the Python function has to decide. */
static PyObject *
read_value(Block *block)
{
    unsigned char decoded[DECODED_STRING_MAX];
    Span value;
    return read_octets(block, &value, decoded) ? bytes_of(value) : NULL;
}

/* Return a name as bytes: the shared object of a known one. NULL as above. */
static PyObject *
read_name(Block *block)
{
    unsigned char decoded[DECODED_STRING_MAX];
    Span name;
    if (!read_octets(block, &name, decoded)) {
        return NULL;
    }
    int known = find_name(block->state, name.start, span_length(name));
    return known < 0 ? bytes_of(name) : Py_NewRef(block->state->names[known]);
}

static int
is_field(PyObject *field)
{
    return PyTuple_CheckExact(field) && PyTuple_GET_SIZE(field) == 2 &&
           PyBytes_CheckExact(PyTuple_GET_ITEM(field, 0)) && PyBytes_CheckExact(PyTuple_GET_ITEM(field, 1));
}

static Py_ssize_t
field_size(PyObject *field)
{
    return PyBytes_GET_SIZE(PyTuple_GET_ITEM(field, 0)) + PyBytes_GET_SIZE(PyTuple_GET_ITEM(field, 1));
}

/* Return the entry *index* of the table as a new reference; NULL without an exception if there is none. */
static PyObject *
table_entry(const Block *block, Py_ssize_t index)
{
    if (index >= NEWEST) {
        Py_ssize_t alive = block->inserted_count - block->inserted_evicted;
        if (index - NEWEST < alive) {
            return Py_NewRef(block->inserted[block->inserted_count - 1 - (index - NEWEST)]);
        }
        index -= alive;
        if (index - NEWEST >= block->kept) {
            return NULL;
        }
    }
    if (index <= 0 || index >= PyList_GET_SIZE(block->table)) {
        return NULL;
    }
    PyObject *field = PyList_GET_ITEM(block->table, index);
    return is_field(field) ? Py_NewRef(field) : NULL;
}

/* Insert *field*, and evict entries that no longer fit (4.4). Return 0 if the Python function has to decide. */
static int
insert_field(Block *block, PyObject *field)
{
    if (block->inserted_count == INSERTED_MAX) {
        return 0;
    }
    block->inserted[block->inserted_count++] = Py_NewRef(field);
    block->size += field_size(field) + ENTRY_OVERHEAD;
    while (block->size > block->capacity) {
        PyObject *oldest;
        if (block->kept > 0) {
            Py_ssize_t index = NEWEST - 1 + block->kept;
            oldest = index < PyList_GET_SIZE(block->table) ? PyList_GET_ITEM(block->table, index) : NULL;
            if (oldest == NULL || !is_field(oldest)) {
                return 0;
            }
            block->kept--;
        } else if (block->inserted_evicted < block->inserted_count) {
            oldest = block->inserted[block->inserted_evicted++];
        } else {
            return 0;
        }
        block->size -= field_size(oldest) + ENTRY_OVERHEAD;
    }
    return 1;
}

/* Read one field. Return a new reference; NULL without an exception if the Python function has to decide. */
static PyObject *
read_field(Block *block, int *literal, int *never_indexed, Py_ssize_t *largest)
{
    unsigned char octet = *block->at;
    *literal = octet < 0x80;
    if (octet >= 0x80) {
        Py_ssize_t index = read_integer(block, 7);
        return index <= 0 ? NULL : table_entry(block, index);
    }
    if (octet >= 0x20 && octet < 0x40) { /* a size update */
        return NULL;
    }
    Py_ssize_t index = read_integer(block, octet >= 0x40 ? 6 : 4);
    PyObject *name = NULL;
    if (index == 0) {
        name = read_name(block);
    } else if (index > 0) {
        PyObject *entry = table_entry(block, index);
        if (entry != NULL) {
            name = Py_NewRef(PyTuple_GET_ITEM(entry, 0));
            Py_DECREF(entry);
        }
    }
    PyObject *value = name == NULL ? NULL : read_value(block);
    PyObject *field = value == NULL ? NULL : PyTuple_New(2);
    if (field == NULL) {
        Py_XDECREF(name);
        Py_XDECREF(value);
        return NULL;
    }
    PyTuple_SET_ITEM(field, 0, name);
    PyTuple_SET_ITEM(field, 1, value);
    if (octet >= 0x40) {
        Py_ssize_t size = field_size(field);
        if (size > *largest) {
            *largest = size;
        }
        if (!insert_field(block, field)) {
            Py_CLEAR(field);
        }
    } else if (octet >= 0x10) {
        *never_indexed = 1;
    }
    return field;
}

static void
open_block(Block *block, const State *state, const Py_buffer *buffer, PyObject *table, Py_ssize_t size,
           Py_ssize_t capacity)
{
    block->state = state;
    block->at = (const unsigned char *)buffer->buf;
    block->end = block->at + buffer->len;
    block->table = table;
    block->kept = PyList_GET_SIZE(table) - NEWEST;
    block->inserted_count = block->inserted_evicted = 0;
    block->size = size;
    block->capacity = capacity;
}

static void
close_block(Block *block)
{
    for (int i = 0; i < block->inserted_count; i++) {
        Py_DECREF(block->inserted[i]);
    }
}

/* Change the table as the block demands. Return -1 with an exception. */
static int
change_table(Block *block)
{
    Py_ssize_t alive = block->inserted_count - block->inserted_evicted;
    Py_ssize_t size = PyList_GET_SIZE(block->table);
    if (block->inserted_count == 0) {
        return 0;
    }
    PyObject *newest = PyList_New(alive);
    if (newest == NULL) {
        return -1;
    }
    for (Py_ssize_t i = 0; i < alive; i++) {
        PyList_SET_ITEM(newest, i, Py_NewRef(block->inserted[block->inserted_count - 1 - i]));
    }
    /* The evicted entries first, at the end of the list: removing them needs no memory. */
    int failed = PyList_SetSlice(block->table, NEWEST + block->kept, size, NULL);
    if (failed == 0) {
        failed = PyList_SetSlice(block->table, NEWEST, NEWEST, newest);
    }
    Py_DECREF(newest);
    return failed;
}

PyDoc_STRVAR(decode_fields_doc,
             "decode_fields(block, table, size, capacity, list_size, /)\n--\n\n"
             "Return (fields, literals, inserted, size, never_indexed, largest) of a field block of HTTP/2.\n\n"
             "The table is a list: static and dynamic entries from index 1 on. It is changed, except if the result is\n"
             "None: then the Python function has to decide.");

static PyObject *
decode_fields(PyObject *module, PyObject *const *args, Py_ssize_t nargs)
{
    Py_ssize_t sizes[3]; /* size, capacity, list_size */
    Py_buffer buffer;

    if (nargs != 5 || !PyList_CheckExact(args[1])) {
        PyErr_SetString(PyExc_TypeError, "decode_fields() takes a block, a table and 3 sizes");
        return NULL;
    }
    if (take_sizes(args + 2, sizes, 3) < 0 || PyObject_GetBuffer(args[0], &buffer, PyBUF_SIMPLE) < 0) {
        return NULL;
    }
    Block block;
    open_block(&block, state_of(module), &buffer, args[1], sizes[0], sizes[1]);
    int never_indexed = 0, literal = 0;
    Py_ssize_t largest = 0, total = 0;
    PyObject *result = NULL;
    PyObject *fields = PyList_New(0);
    PyObject *literals = PyList_New(0);
    int understood = fields != NULL && literals != NULL && block.kept >= 0;

    while (understood && block.at < block.end) {
        PyObject *field = read_field(&block, &literal, &never_indexed, &largest);
        understood = field != NULL;
        if (understood) {
            total += field_size(field) + ENTRY_OVERHEAD;
            understood = total <= sizes[2] && PyList_Append(fields, field) == 0 &&
                         (!literal || PyList_Append(literals, field) == 0);
            Py_DECREF(field);
        }
    }
    PyBuffer_Release(&buffer);
    if (understood && change_table(&block) == 0) {
        result = Py_BuildValue("OOinOn", fields, literals, block.inserted_count, block.size,
                               never_indexed ? Py_True : Py_False, largest);
    }
    close_block(&block);
    Py_XDECREF(fields);
    Py_XDECREF(literals);
    if (result == NULL && !PyErr_Occurred()) {
        Py_RETURN_NONE;
    }
    return result;
}

/* ------------------------------------------------------------------------------------------- requests of HTTP/2 */

/* Octets of a request line besides method and target: two spaces and "HTTP/2.0". */
#define LINE_REST 10
/* Octets of a field line besides name and value: the colon and a space. */
#define FIELD_REST 2

/* The pseudo-fields of a usual request. Each comes once. */
enum { P_METHOD, P_SCHEME, P_AUTHORITY, P_PATH, P_COUNT };
static const char *const PSEUDO[] = {":method", ":scheme", ":authority", ":path"};
_Static_assert(sizeof PSEUDO / sizeof PSEUDO[0] == P_COUNT, "each pseudo-field has its name");

/* A request that is being read. It owns its objects. */
typedef struct {
    PyObject *pseudo[P_COUNT]; /* values */
    int pseudo_count;
    PyObject *fields[FIELDS_MAX]; /* behind the pseudo-fields; a cookie field holds all cookies at the end */
    int count;
    int cookie; /* the index of the first cookie field, or -1 */
    int cookies;
    Py_ssize_t cookies_size; /* octets of their values */
    PyObject *cookie_values[FIELDS_MAX];
    PyObject *priority; /* a value, or NULL */
    long long content_length; /* -1 if it is not declared */
    int expect_continue;
    int secret; /* it has a field that must not be kept */
} Request;

static Span
span_of(PyObject *octets)
{
    const unsigned char *start = (const unsigned char *)PyBytes_AS_STRING(octets);
    return (Span){start, start + PyBytes_GET_SIZE(octets)};
}

/* Tell whether a name is a token in lower case. */
static int
is_lower_token(Span name)
{
    const unsigned char *at = name.start;
    while (at < name.end && TCHAR[*at] == *at && *at != 0) {
        at++;
    }
    return at == name.end && at != name.start;
}

/* Tell whether a value may be one in HTTP/2: no control characters, and no white space around it. */
static int
is_value(Span value)
{
    if (value.start == value.end) {
        return 1;
    }
    unsigned char first = value.start[0], last = value.end[-1];
    return first != ' ' && first != '\t' && last != ' ' && last != '\t' && value_end(value.start, value.end) == value.end;
}

static int
take_pseudo_field(Request *request, Span name, PyObject *value)
{
    for (int i = 0; i < P_COUNT; i++) {
        if (strlen(PSEUDO[i]) == span_length(name) && memcmp(PSEUDO[i], name.start, span_length(name)) == 0) {
            if (request->pseudo[i] != NULL) {
                return 0;
            }
            request->pseudo[i] = Py_NewRef(value);
            request->pseudo_count++;
            return 1;
        }
    }
    return 0;
}

/* Take one field. Return 0 if the Python function has to decide.
 *
 * Fields from the table were checked when they came as literals.
 */
static int
take_field(Request *request, const State *state, PyObject *field, int literal, Py_ssize_t longest)
{
    PyObject *value_object = PyTuple_GET_ITEM(field, 1);
    Span name = span_of(PyTuple_GET_ITEM(field, 0));
    Span value = span_of(value_object);

    if (literal && !is_value(value)) {
        return 0;
    }
    if (name.start < name.end && *name.start == ':') {
        return request->count == 0 && take_pseudo_field(request, name, value_object);
    }
    int known = find_name(state, name.start, span_length(name));
    if (known < 0 && literal && !is_lower_token(name)) {
        return 0;
    }
    if (field_size(field) + FIELD_REST > longest) {
        return 0;
    }
    switch (known < 0 ? PLAIN : KNOWN[known].meaning) {
    case HOST: case TRANSFER_ENCODING: case CONNECTION: case UPGRADE: case HOP:
        return 0;
    case TE:
        if (!IS_WORD(value, "trailers")) {
            return 0;
        }
        break;
    case CONTENT_LENGTH:
        if (request->content_length >= 0 || value.start == value.end || span_length(value) > LENGTH_DIGITS) {
            return 0;
        }
        request->content_length = 0;
        for (const unsigned char *at = value.start; at < value.end; at++) {
            if (!is_digit(*at)) {
                return 0;
            }
            request->content_length = request->content_length * 10 + (*at - '0');
        }
        break;
    case EXPECT:
        if (request->expect_continue++ || !IS_WORD(value, "100-continue")) {
            return 0;
        }
        break;
    case PRIORITY:
        if (request->priority != NULL) {
            return 0;
        }
        request->priority = Py_NewRef(value_object);
        break;
    case COOKIE:
        request->secret |= literal;
        if (request->cookies == FIELDS_MAX) {
            return 0;
        }
        request->cookies_size += (Py_ssize_t)span_length(value);
        request->cookie_values[request->cookies++] = Py_NewRef(value_object);
        if (request->cookies > 1) {
            return 1;
        }
        request->cookie = request->count;
        break;
    case SECRET:
        request->secret |= literal;
        break;
    default:
        break;
    }
    if (request->count == FIELDS_MAX) {
        return 0;
    }
    request->fields[request->count++] = Py_NewRef(field);
    return 1;
}

/* Join several cookie fields into one (RFC 9113 section 8.2.3). Return 0 with an exception, or without one if the
 * Python function has to decide. */
static int
join_cookies(Request *request, Py_ssize_t longest)
{
    if (request->cookies < 2) {
        return 1;
    }
    Py_ssize_t size = request->cookies_size + 2 * (request->cookies - 1);
    if (size + (Py_ssize_t)strlen("cookie") + FIELD_REST > longest) {
        return 0;
    }
    PyObject *joined = PyBytes_FromStringAndSize(NULL, size);
    if (joined == NULL) {
        return 0;
    }
    char *to = PyBytes_AS_STRING(joined);
    for (int i = 0; i < request->cookies; i++) {
        if (i > 0) {
            *to++ = ';';
            *to++ = ' ';
        }
        memcpy(to, PyBytes_AS_STRING(request->cookie_values[i]), (size_t)PyBytes_GET_SIZE(request->cookie_values[i]));
        to += PyBytes_GET_SIZE(request->cookie_values[i]);
    }
    PyObject *first = request->fields[request->cookie];
    PyObject *field = PyTuple_Pack(2, PyTuple_GET_ITEM(first, 0), joined);
    Py_DECREF(joined);
    if (field == NULL) {
        return 0;
    }
    request->fields[request->cookie] = field;
    Py_DECREF(first);
    return 1;
}

/* Tell whether the pseudo-fields make a usual request line, and set the parts of its target. */
static int
is_usual_line(const Request *request, Span *path, Span *query, Py_ssize_t most)
{
    if (request->pseudo_count != P_COUNT) {
        return 0;
    }
    Span method = span_of(request->pseudo[P_METHOD]);
    Span scheme = span_of(request->pseudo[P_SCHEME]);
    Span target = span_of(request->pseudo[P_PATH]);
    const unsigned char *at = method.start;
    while (at < method.end && TCHAR[*at] != 0) {
        at++;
    }
    if (at != method.end || at == method.start ||
        (span_length(method) == 7 && memcmp(method.start, "CONNECT", 7) == 0) ||
        !((span_length(scheme) == 4 && memcmp(scheme.start, "http", 4) == 0) ||
          (span_length(scheme) == 5 && memcmp(scheme.start, "https", 5) == 0)) ||
        target.start == target.end || *target.start != '/' || !is_usual_host(span_of(request->pseudo[P_AUTHORITY])) ||
        PyBytes_GET_SIZE(request->pseudo[P_METHOD]) > most - LINE_REST ||
        PyBytes_GET_SIZE(request->pseudo[P_PATH]) > most - LINE_REST - PyBytes_GET_SIZE(request->pseudo[P_METHOD])) {
        return 0;
    }
    at = target.start;
    while (at < target.end && is_target(*at) && *at != '?') {
        at++;
    }
    *path = (Span){target.start, at};
    *query = (Span){at, at};
    if (at < target.end && *at == '?') {
        query->start = ++at;
        while (at < target.end && is_target(*at)) {
            at++;
        }
        query->end = at;
    }
    return at == target.end && (span_length(*path) <= DECODED_MAX || !has_percent(*path));
}

/* The order of the values in what read_request() returns. */
enum {
    Q_METHOD, Q_METHOD_TEXT, Q_TARGET, Q_PATH, Q_PATH_TEXT, Q_QUERY, Q_FIELDS, Q_HOST, Q_CONTENT_LENGTH,
    Q_EXPECT_CONTINUE, Q_PRIORITY, Q_KEEP, Q_TABLE, Q_COUNT
};

static PyObject *
request_fields(const Request *request, const State *state)
{
    PyObject *host = PyTuple_Pack(2, state->names[state->host], request->pseudo[P_AUTHORITY]);
    PyObject *fields = host == NULL ? NULL : PyTuple_New(request->count + 1);
    if (fields == NULL) {
        Py_XDECREF(host);
        return NULL;
    }
    PyTuple_SET_ITEM(fields, 0, host);
    for (int i = 0; i < request->count; i++) {
        PyTuple_SET_ITEM(fields, i + 1, Py_NewRef(request->fields[i]));
    }
    return fields;
}

static PyObject *
request_values(const Request *request, const State *state, int ended, Span path, Span query, int keep, PyObject *table)
{
    PyObject *values = PyTuple_New(Q_COUNT);
    if (values == NULL) {
        return NULL;
    }
#define SET(at, made)                                                                                                  \
    do {                                                                                                               \
        PyObject *object = (made);                                                                                     \
        if (object == NULL) {                                                                                          \
            Py_DECREF(values);                                                                                         \
            return NULL;                                                                                               \
        }                                                                                                              \
        PyTuple_SET_ITEM(values, at, object);                                                                          \
    } while (0)

    Span method = span_of(request->pseudo[P_METHOD]);
    int known = find_method(method);
    SET(Q_METHOD, Py_NewRef(request->pseudo[P_METHOD]));
    SET(Q_METHOD_TEXT, known < 0 ? ascii_of(method) : Py_NewRef(state->method_texts[known]));
    SET(Q_TARGET, Py_NewRef(request->pseudo[P_PATH]));
    SET(Q_PATH, query.start == path.end ? Py_NewRef(request->pseudo[P_PATH]) : bytes_of(path));
    SET(Q_PATH_TEXT, path_text_of(path));
    SET(Q_QUERY, bytes_of(query));
    SET(Q_FIELDS, request_fields(request, state));
    SET(Q_HOST, Py_NewRef(request->pseudo[P_AUTHORITY]));
    SET(Q_CONTENT_LENGTH, request->content_length >= 0 ? PyLong_FromLongLong(request->content_length)
                          : ended                      ? PyLong_FromLong(0)
                                                       : Py_NewRef(Py_None));
    SET(Q_EXPECT_CONTINUE, PyBool_FromLong(request->expect_continue && !ended && request->content_length != 0));
    SET(Q_PRIORITY, Py_NewRef(request->priority == NULL ? Py_None : request->priority));
    SET(Q_KEEP, PyBool_FromLong(keep));
    SET(Q_TABLE, Py_NewRef(table));
#undef SET
    return values;
}

PyDoc_STRVAR(read_request_doc,
             "read_request(block, ended, table, size, capacity, limits, /)\n--\n\n"
             "Return the parts of a usual request that a field block stands for; None for the Python function to decide.\n\n"
             "limits are the size of a list of fields, of a request line and of a field line, and the number of fields.\n"
             "The table is changed, as by decode_fields(), except if the result is None.");

static PyObject *
read_request(PyObject *module, PyObject *const *args, Py_ssize_t nargs)
{
    Py_ssize_t sizes[2];  /* size, capacity */
    Py_ssize_t limits[4]; /* list_size, request_line, field_line, fields */
    const State *state = state_of(module);
    Py_buffer buffer;

    if (nargs != 6 || !PyBool_Check(args[1]) || !PyList_CheckExact(args[2]) || !PyTuple_CheckExact(args[5]) ||
        PyTuple_GET_SIZE(args[5]) != 4) {
        PyErr_SetString(PyExc_TypeError, "read_request() takes a block, a bool, a table, 2 sizes and 4 limits");
        return NULL;
    }
    PyObject *const given[] = {PyTuple_GET_ITEM(args[5], 0), PyTuple_GET_ITEM(args[5], 1),
                               PyTuple_GET_ITEM(args[5], 2), PyTuple_GET_ITEM(args[5], 3)};
    if (take_sizes(args + 3, sizes, 2) < 0 || take_sizes(given, limits, 4) < 0 ||
        PyObject_GetBuffer(args[0], &buffer, PyBUF_SIMPLE) < 0) {
        return NULL;
    }
    int ended = args[1] == Py_True;
    int never_indexed = 0, literal = 0;
    Py_ssize_t largest = 0, total = 0;
    PyObject *result = NULL;
    Span path, query;
    Block block;
    open_block(&block, state, &buffer, args[2], sizes[0], sizes[1]);
    Request request;
    memset(request.pseudo, 0, sizeof request.pseudo);
    request.pseudo_count = request.count = request.cookies = request.expect_continue = request.secret = 0;
    request.cookie = -1;
    request.cookies_size = 0;
    request.priority = NULL;
    request.content_length = -1;
    int understood = block.kept >= 0;

    while (understood && block.at < block.end) {
        PyObject *field = read_field(&block, &literal, &never_indexed, &largest);
        understood = field != NULL;
        if (understood) {
            total += field_size(field) + ENTRY_OVERHEAD;
            understood = total <= limits[0] && take_field(&request, state, field, literal, limits[2]);
            Py_DECREF(field);
        }
    }
    PyBuffer_Release(&buffer);
    understood = understood && is_usual_line(&request, &path, &query, limits[1]) && request.count < limits[3] &&
                 PyBytes_GET_SIZE(request.pseudo[P_AUTHORITY]) + (Py_ssize_t)strlen("host") + FIELD_REST <= limits[2] &&
                 !(ended && request.content_length > 0) && join_cookies(&request, limits[2]);
    if (understood) {
        PyObject *table = Py_None;
        if (block.inserted_count == 0) {
            Py_INCREF(table);
        } else {
            table = Py_BuildValue("inn", block.inserted_count, block.size, largest);
        }
        if (table != NULL) {
            int keep = block.inserted_count == 0 && !never_indexed && !request.secret;
            result = request_values(&request, state, ended, path, query, keep, table);
            Py_DECREF(table);
        }
        if (result != NULL && change_table(&block) < 0) {
            Py_CLEAR(result);
        }
    }
    close_block(&block);
    for (int i = 0; i < P_COUNT; i++) {
        Py_XDECREF(request.pseudo[i]);
    }
    for (int i = 0; i < request.count; i++) {
        Py_DECREF(request.fields[i]);
    }
    for (int i = 0; i < request.cookies; i++) {
        Py_DECREF(request.cookie_values[i]);
    }
    Py_XDECREF(request.priority);
    if (result == NULL && !PyErr_Occurred()) {
        Py_RETURN_NONE;
    }
    return result;
}

/* --------------------------------------------------------------------------------------------- frames of HTTP/2 */

#define FRAME_HEADER 9
#define FRAME_MAX 16384 /* bytes of the largest payload that every peer takes (RFC 9113 section 4.2) */
#define STREAM_MAX 0x7fffffff
enum { DATA_FRAME = 0, HEADERS_FRAME = 1 };
enum { END_STREAM = 1, END_HEADERS = 4 };

PyDoc_STRVAR(request_block_doc,
             "request_block(data, position, stream, /)\n--\n\n"
             "Return the field block of the frame at position, if it is complete and opens and ends the stream.\n\n"
             "None for every other frame, and for a part of one.");

static PyObject *
request_block(PyObject *module, PyObject *const *args, Py_ssize_t nargs)
{
    Py_ssize_t sizes[2]; /* position, stream */
    Py_buffer buffer;

    if (take_octets_and_sizes("request_block", args, nargs, &buffer, sizes, 2) < 0) {
        return NULL;
    }
    PyObject *block = NULL;
    int understood = 0;
    if (sizes[0] <= buffer.len && buffer.len - sizes[0] >= FRAME_HEADER) {
        const unsigned char *at = (const unsigned char *)buffer.buf + sizes[0];
        Py_ssize_t size = (Py_ssize_t)at[0] << 16 | (Py_ssize_t)at[1] << 8 | at[2];
        uint32_t stream = (uint32_t)at[5] << 24 | (uint32_t)at[6] << 16 | (uint32_t)at[7] << 8 | at[8];
        understood = at[3] == HEADERS_FRAME && at[4] == (END_HEADERS | END_STREAM) && stream <= STREAM_MAX &&
                     (Py_ssize_t)stream == sizes[1] && size <= FRAME_MAX &&
                     size <= buffer.len - sizes[0] - FRAME_HEADER;
        if (understood) {
            block = PyBytes_FromStringAndSize((const char *)at + FRAME_HEADER, size);
        }
    }
    PyBuffer_Release(&buffer);
    if (!understood) {
        Py_RETURN_NONE;
    }
    return block;
}

static char *
put_frame_header(char *to, Py_ssize_t size, int kind, int flags, Py_ssize_t stream)
{
    *to++ = (char)(size >> 16);
    *to++ = (char)(size >> 8);
    *to++ = (char)size;
    *to++ = (char)kind;
    *to++ = (char)flags;
    *to++ = (char)(stream >> 24);
    *to++ = (char)(stream >> 16);
    *to++ = (char)(stream >> 8);
    *to++ = (char)stream;
    return to;
}

PyDoc_STRVAR(response_frames_doc,
             "response_frames(stream, block, content, /)\n--\n\n"
             "Return a whole response, a HEADERS and a DATA frame; None if block or content does not fit into its frame.");

static PyObject *
response_frames(PyObject *module, PyObject *const *args, Py_ssize_t nargs)
{
    Py_ssize_t stream;

    if (nargs != 3 || !PyBytes_CheckExact(args[1])) {
        PyErr_SetString(PyExc_TypeError, "response_frames() takes a stream, a field block, and content");
        return NULL;
    }
    if (take_sizes(args, &stream, 1) < 0) {
        return NULL;
    }
    Py_ssize_t block_size = PyBytes_GET_SIZE(args[1]);
    if (!PyBytes_CheckExact(args[2]) || stream > STREAM_MAX || block_size > FRAME_MAX ||
        PyBytes_GET_SIZE(args[2]) > FRAME_MAX) {
        Py_RETURN_NONE;
    }
    Py_ssize_t size = PyBytes_GET_SIZE(args[2]);
    PyObject *frames = PyBytes_FromStringAndSize(NULL, 2 * FRAME_HEADER + block_size + size);
    if (frames != NULL) {
        char *to = put_frame_header(PyBytes_AS_STRING(frames), block_size, HEADERS_FRAME, END_HEADERS, stream);
        memcpy(to, PyBytes_AS_STRING(args[1]), (size_t)block_size);
        to = put_frame_header(to + block_size, size, DATA_FRAME, END_STREAM, stream);
        memcpy(to, PyBytes_AS_STRING(args[2]), (size_t)size);
    }
    return frames;
}

/* ------------------------------------------------------------------------------------------------------- the counts */

/* The bounds of the buckets of durations in nanoseconds, as in bridge/telemetry/metrics/catalog.py. */
static const int64_t BOUNDS[] = {
    5000000,   10000000,  25000000,   50000000,   75000000,   100000000,  250000000,
    500000000, 750000000, 1000000000, 2500000000, 5000000000, 7500000000, 10000000000,
};
#define BUCKETS ((Py_ssize_t)(sizeof BOUNDS / sizeof BOUNDS[0]) + 1)

/* Add one value to the row that begins at an index: its buckets, and behind them the sum. The row was checked. */
static void
add_duration(uint64_t *cells, Py_ssize_t row, int64_t value)
{
    Py_ssize_t bucket = 0;
    while (bucket < BUCKETS - 1 && BOUNDS[bucket] < value) {
        bucket++;
    }
    cells[row + bucket] += 1;
    cells[row + BUCKETS] += (uint64_t)value;
}

/* The times that an exchange notes for observers. Python reads and writes the attributes, whose meaning is in
 * bridge/core/connection/times.py. The frequent ones are T_OBJECT_EX, which CPython treats like slots of Python classes:
 * other kinds of members cost ten times as much. Python can also delete them: then they are NULL. */
typedef struct {
    PyObject_HEAD
    long long opened; /* nanoseconds */
    long long began;
    PyObject *queued; /* float, seconds */
    PyObject *called_with;
    PyObject *refused;
    PyObject *answers; /* bool */
    const State *state; /* of the module, which the type refers to */
} Times;

static PyMemberDef times_members[] = {
    {"opened", T_LONGLONG, offsetof(Times, opened), 0, NULL},
    {"began", T_LONGLONG, offsetof(Times, began), 0, NULL},
    {"queued", T_OBJECT_EX, offsetof(Times, queued), 0, NULL},
    {"called_with", T_OBJECT_EX, offsetof(Times, called_with), 0, NULL},
    {"refused", T_OBJECT_EX, offsetof(Times, refused), 0, NULL},
    {"answers", T_OBJECT_EX, offsetof(Times, answers), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static int
times_traverse(PyObject *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(((Times *)self)->queued);
    Py_VISIT(((Times *)self)->called_with);
    Py_VISIT(((Times *)self)->refused);
    return 0;
}

static int
times_clear(PyObject *self)
{
    Py_CLEAR(((Times *)self)->queued);
    Py_CLEAR(((Times *)self)->called_with);
    Py_CLEAR(((Times *)self)->refused);
    return 0;
}

static void
times_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    times_clear(self);
    Py_DECREF(((Times *)self)->answers);
    State *state = PyType_GetModuleState(type);
    if (state == NULL) {
        PyErr_Clear(); /* the interpreter ends, and has cleared the type */
    }
    if (state != NULL && state->times_type != NULL && state->spares_count < SPARES) {
        state->spares[state->spares_count++] = self;
    } else {
        PyObject_GC_Del(self);
    }
    Py_DECREF(type);
}

PyDoc_STRVAR(keep_request_doc, "See Times.keep_request of bridge.core.connection.times.");

static PyObject *
times_keep_request(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    Times *times = (Times *)self;
    PyObject *called_with = times->called_with;
    if (called_with == NULL || !PyDict_CheckExact(called_with)) {
        Py_RETURN_NONE;
    }
    Py_INCREF(called_with); /* a key of the application's may be an object that compares itself, and does anything */
    int named = PyDict_Contains(called_with, times->state->routes[0]);
    PyObject *request = NULL;
    if (named == 0) {
        request = Py_XNewRef(PyDict_GetItemWithError(called_with, times->state->request));
    }
    Py_DECREF(called_with);
    if (named != 0) {
        return named < 0 ? NULL : Py_NewRef(Py_None);
    }
    if (request == NULL) {
        if (PyErr_Occurred()) {
            return NULL;
        }
        request = Py_NewRef(Py_None);
    }
    Py_XSETREF(times->called_with, request);
    Py_RETURN_NONE;
}

static PyMethodDef times_methods[] = {
    {"keep_request", times_keep_request, METH_NOARGS, keep_request_doc},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot times_slots[] = {
    {Py_tp_members, times_members},
    {Py_tp_methods, times_methods},
    {Py_tp_traverse, times_traverse},
    {Py_tp_clear, times_clear},
    {Py_tp_dealloc, times_dealloc},
    {0, NULL},
};

static PyType_Spec times_spec = {
    .name = "bridge._speedups.Times",
    .basicsize = sizeof(Times),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = times_slots,
};

/* Store what time.monotonic_ns() returns; -1 for an exception. */
static int
read_clock(const State *state, long long *now)
{
#ifdef __linux__
    (void)state;
    struct timespec time;
    if (clock_gettime(CLOCK_MONOTONIC, &time) == 0) {
        *now = (long long)time.tv_sec * 1000000000 + time.tv_nsec;
        return 0;
    }
    PyErr_SetFromErrno(PyExc_OSError);
    return -1;
#else
    PyObject *found = PyObject_CallNoArgs(state->clock);
    *now = found == NULL ? -1 : PyLong_AsLongLong(found);
    Py_XDECREF(found);
    return PyErr_Occurred() ? -1 : 0;
#endif
}

static PyObject *
new_times(PyObject *module, Py_ssize_t nargs, PyObject *answers)
{
    State *state = state_of(module);
    long long now;
    if (nargs != 0) {
        PyErr_SetString(PyExc_TypeError, "times take no arguments");
        return NULL;
    }
    if (read_clock(state, &now) < 0) {
        return NULL;
    }
    Times *times;
    if (state->spares_count > 0) {
        times = (Times *)PyObject_Init(state->spares[--state->spares_count], (PyTypeObject *)state->times_type);
    } else {
        times = PyObject_GC_New(Times, (PyTypeObject *)state->times_type);
        if (times == NULL) {
            return NULL;
        }
    }
    times->opened = now;
    times->began = 0;
    times->queued = Py_NewRef(state->nothing);
    times->called_with = Py_NewRef(Py_None);
    times->refused = Py_NewRef(state->empty);
    times->answers = Py_NewRef(answers);
    times->state = state;
    PyObject_GC_Track((PyObject *)times);
    return (PyObject *)times;
}

PyDoc_STRVAR(note_times_doc, "See note_times_pure of bridge.core.connection.times.");

static PyObject *
note_times(PyObject *module, PyObject *const *Py_UNUSED(args), Py_ssize_t nargs)
{
    return new_times(module, nargs, Py_True);
}

PyDoc_STRVAR(note_opening_doc, "See note_opening_pure of bridge.core.connection.times.");

static PyObject *
note_opening(PyObject *module, PyObject *const *Py_UNUSED(args), Py_ssize_t nargs)
{
    return new_times(module, nargs, Py_False);
}

/* Return 1 if the application has left no route in the scope or environ that it got, 0 if it may have, -1 for an
 * exception. */
static int
has_no_route(const State *state, PyObject *called_with)
{
    if (!PyDict_CheckExact(called_with)) {
        return 0;
    }
    for (int i = 0; i < ROUTES_COUNT; i++) {
        int has = PyDict_Contains(called_with, state->routes[i]);
        if (has != 0) {
            return has < 0 ? -1 : 0;
        }
    }
    return 1;
}

/* Finds the rows of a process's counts. See PureCounter of bridge/telemetry/metrics/counting.py. */
#define KEYS 5        /* the objects of a kind: status, method, writing, version, protocol */
#define REMEMBERED 16 /* kinds; a usual application has fewer that come often */

typedef struct {
    PyObject *keys[KEYS];
    Py_ssize_t row;
} Kind;

typedef struct {
    PyObject_HEAD
    const State *state; /* of the module, which the type refers to */
    Py_buffer memory;   /* of the cells; held, since asking for it each time takes a twentieth of the time */
    uint64_t *cells;    /* in it */
    Py_ssize_t last;    /* where the last row may begin */
    Py_ssize_t queue;
    int used;
    int next; /* takes the place of the one that was learned first */
    Kind kinds[REMEMBERED];
} Counter;

/* Tell whether two keys are equal, without running code of theirs. */
static int
same_key(PyObject *a, PyObject *b)
{
    if (a == b) {
        return 1;
    }
    if (PyBytes_CheckExact(a) && PyBytes_CheckExact(b)) {
        Py_ssize_t size = PyBytes_GET_SIZE(a);
        return size == PyBytes_GET_SIZE(b) && memcmp(PyBytes_AS_STRING(a), PyBytes_AS_STRING(b), (size_t)size) == 0;
    }
    if (PyLong_CheckExact(a) && PyLong_CheckExact(b)) {
        return PyObject_RichCompareBool(a, b, Py_EQ);
    }
    return PyUnicode_CheckExact(a) && PyUnicode_CheckExact(b) && PyUnicode_Compare(a, b) == 0;
}

/* Return the kind if it is remembered, else NULL. */
static const Kind *
find_kind(const Counter *counter, PyObject *const *keys)
{
    for (int i = 0; i < counter->used; i++) {
        const Kind *kind = &counter->kinds[i];
        int key = 0;
        while (key < KEYS && same_key(kind->keys[key], keys[key])) {
            key++;
        }
        if (key == KEYS) {
            return kind;
        }
    }
    return NULL;
}

/* Count an exchange that ends now, and its time in the queue. Return -1 with an exception; then nothing is counted. */
static int
count_in(const Counter *counter, Times *times, Py_ssize_t row)
{
    long long now;
    if (row < 0 || row > counter->last) {
        PyErr_SetString(PyExc_ValueError, "a row outside of the cells");
        return -1;
    }
    if (times->queued == NULL || !PyFloat_CheckExact(times->queued)) {
        PyErr_SetString(PyExc_TypeError, "queued is no float");
        return -1;
    }
    if (read_clock(counter->state, &now) < 0) {
        return -1;
    }
    /* Python may set opened to any value; this expression does not overflow for any. */
    int64_t elapsed = times->opened < 0 ? now : now > times->opened ? now - times->opened : 0;
    add_duration(counter->cells, row, elapsed);
    double queued = PyFloat_AS_DOUBLE(times->queued) * 1e9;
    if (queued > 0.0) {
        add_duration(counter->cells, counter->queue, queued < 9e18 ? (int64_t)queued : INT64_MAX);
    }
    PyObject *called_with = times->called_with;
    if (called_with != Py_None) {
        times->called_with = Py_NewRef(Py_None);
        Py_XDECREF(called_with);
    }
    return 0;
}

PyDoc_STRVAR(count_doc, "See PureCounter.count of bridge.telemetry.metrics.counting.");

static PyObject *
counter_count(PyObject *self, PyObject *const *args, Py_ssize_t nargs)
{
    enum { TIMES, STATUS, ARGUMENTS = STATUS + KEYS };
    const Counter *counter = (const Counter *)self;
    const State *state = counter->state;
    if (nargs == ARGUMENTS && args[TIMES] == Py_None) {
        Py_RETURN_TRUE;
    }
    if (nargs != ARGUMENTS || Py_TYPE(args[TIMES]) != (void *)state->times_type || !PyLong_CheckExact(args[STATUS])) {
        PyErr_SetString(PyExc_TypeError, "count: times, status, method, writing, version, protocol");
        return NULL;
    }
    Times *times = (Times *)args[TIMES];
    if (times->refused != state->empty) {
        Py_RETURN_FALSE;
    }
    PyObject *called_with = times->called_with;
    if (called_with != NULL && called_with != Py_None) {
        Py_INCREF(called_with); /* a key of the application's may be an object that compares itself, and does anything */
        int absent = has_no_route(state, called_with);
        Py_DECREF(called_with);
        if (absent <= 0) {
            return absent < 0 ? NULL : Py_NewRef(Py_False);
        }
    }
    const Kind *kind = find_kind(counter, args + STATUS);
    if (kind == NULL) {
        Py_RETURN_FALSE;
    }
    return count_in(counter, times, kind->row) < 0 ? NULL : Py_NewRef(Py_True);
}

PyDoc_STRVAR(add_doc, "See PureCounter.add of bridge.telemetry.metrics.counting.");

static PyObject *
counter_add(PyObject *self, PyObject *const *args, Py_ssize_t nargs)
{
    const Counter *counter = (const Counter *)self;
    if (nargs != 2 || Py_TYPE(args[0]) != (void *)counter->state->times_type || !PyLong_CheckExact(args[1])) {
        PyErr_SetString(PyExc_TypeError, "add: times, row");
        return NULL;
    }
    Py_ssize_t row = PyLong_AsSsize_t(args[1]);
    if ((row == -1 && PyErr_Occurred()) || count_in(counter, (Times *)args[0], row) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

PyDoc_STRVAR(learn_doc, "See PureCounter.learn of bridge.telemetry.metrics.counting.");

static PyObject *
counter_learn(PyObject *self, PyObject *const *args, Py_ssize_t nargs)
{
    enum { ROW, STATUS, ARGUMENTS = STATUS + KEYS };
    Counter *counter = (Counter *)self;
    if (nargs != ARGUMENTS || !PyLong_CheckExact(args[ROW]) || !PyLong_CheckExact(args[STATUS])) {
        PyErr_SetString(PyExc_TypeError, "learn: row, status, method, writing, version, protocol");
        return NULL;
    }
    Py_ssize_t row = PyLong_AsSsize_t(args[ROW]);
    if (row == -1 && PyErr_Occurred()) {
        return NULL;
    }
    if (find_kind(counter, args + STATUS) != NULL) {
        Py_RETURN_NONE;
    }
    Kind *kind = &counter->kinds[counter->next];
    PyObject *before[KEYS];
    for (int i = 0; i < KEYS; i++) {
        before[i] = kind->keys[i];
        kind->keys[i] = Py_NewRef(args[STATUS + i]);
    }
    kind->row = row;
    counter->next = (counter->next + 1) % REMEMBERED;
    counter->used += counter->used < REMEMBERED;
    for (int i = 0; i < KEYS; i++) { /* last: what goes may run code that counts */
        Py_XDECREF(before[i]);
    }
    Py_RETURN_NONE;
}

static int
counter_traverse(PyObject *self, visitproc visit, void *arg)
{
    Counter *counter = (Counter *)self;
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(counter->memory.obj);
    for (int i = 0; i < counter->used * KEYS; i++) {
        Py_VISIT(counter->kinds[i / KEYS].keys[i % KEYS]);
    }
    return 0;
}

static int
counter_clear(PyObject *self)
{
    Counter *counter = (Counter *)self;
    int used = counter->used;
    counter->used = counter->next = 0; /* first: what goes may run code that counts */
    for (int i = 0; i < used * KEYS; i++) {
        Py_CLEAR(counter->kinds[i / KEYS].keys[i % KEYS]);
    }
    return 0;
}

static void
counter_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    counter_clear(self);
    PyBuffer_Release(&((Counter *)self)->memory);
    PyObject_GC_Del(self);
    Py_DECREF(type);
}

/* METH_FASTCALL functions have another type than the table's. The double cast avoids a compiler warning. */
#define METHOD(prefix, name) {#name, (PyCFunction)(void (*)(void))prefix##name, METH_FASTCALL, name##_doc}

static PyMethodDef counter_methods[] = {
    METHOD(counter_, count),
    METHOD(counter_, add),
    METHOD(counter_, learn),
    {NULL, NULL, 0, NULL},
};

static PyType_Slot counter_slots[] = {
    {Py_tp_methods, counter_methods},
    {Py_tp_traverse, counter_traverse},
    {Py_tp_clear, counter_clear},
    {Py_tp_dealloc, counter_dealloc},
    {0, NULL},
};

static PyType_Spec counter_spec = {
    .name = "bridge._speedups.Counter",
    .basicsize = sizeof(Counter),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = counter_slots,
};

PyDoc_STRVAR(make_counter_doc, "See PureCounter of bridge.telemetry.metrics.counting.");

static PyObject *
make_counter(PyObject *module, PyObject *const *args, Py_ssize_t nargs)
{
    if (nargs != 2 || !PyLong_CheckExact(args[1])) {
        PyErr_SetString(PyExc_TypeError, "make_counter: cells, queue");
        return NULL;
    }
    Py_ssize_t queue = PyLong_AsSsize_t(args[1]);
    if (queue == -1 && PyErr_Occurred()) {
        return NULL;
    }
    const State *state = state_of(module);
    Py_buffer cells, memory;
    if (!PyMemoryView_Check(args[0])) {
        PyErr_SetString(PyExc_TypeError, "make_counter: cells, queue");
        return NULL;
    }
    if (PyObject_GetBuffer(args[0], &cells, PyBUF_WRITABLE) < 0) { /* not one that was released */
        return NULL;
    }
    uint64_t *first = cells.buf;
    Py_ssize_t last = cells.len / 8 - (BUCKETS + 1);
    /* The view itself must not be held: CPython 3.11 crashes when it collects one that is. */
    PyObject *base = PyMemoryView_GET_BASE(args[0]);
    int held = base == NULL ? -1 : PyObject_GetBuffer(base, &memory, PyBUF_WRITABLE);
    PyBuffer_Release(&cells);
    if (held < 0) {
        if (!PyErr_Occurred()) {
            PyErr_SetString(PyExc_TypeError, "the cells are a view of nothing");
        }
        return NULL;
    }
    Counter *counter = NULL;
    if (queue < 0 || queue > last || (uintptr_t)first % 8 != 0) {
        PyErr_SetString(PyExc_ValueError, "a row outside of the cells");
    } else {
        counter = PyObject_GC_New(Counter, (PyTypeObject *)state->counter_type);
    }
    if (counter == NULL) {
        PyBuffer_Release(&memory);
        return NULL;
    }
    memset(counter->kinds, 0, sizeof counter->kinds);
    counter->state = state;
    counter->memory = memory;
    counter->cells = first;
    counter->last = last;
    counter->queue = queue;
    counter->used = counter->next = 0;
    PyObject_GC_Track((PyObject *)counter);
    return (PyObject *)counter;
}

/* ------------------------------------------------------------------------------------------------------- the module */

static int
add_name(State *state, int index)
{
    size_t length = strlen(KNOWN[index].name);
    assert(length > 0 && length <= KNOWN_LENGTH_MAX);
    state->names[index] = PyBytes_FromStringAndSize(KNOWN[index].name, (Py_ssize_t)length);
    if (state->names[index] == NULL) {
        return -1;
    }
    state->lengths[index] = (uint8_t)length;
    if (KNOWN[index].meaning == HOST) {
        state->host = index;
    }
    for (size_t i = 0; i < length; i++) {
        char c = KNOWN[index].name[i];
        int begins = i == 0 || KNOWN[index].name[i - 1] == '-';
        state->titles[index][i] = (char)(begins && c >= 'a' && c <= 'z' ? c - 32 : c);
    }
    unsigned slot = name_hash((const unsigned char *)KNOWN[index].name, length);
    while (state->slots[slot] != 0) {
        slot = (slot + 1) & (SLOTS - 1);
    }
    state->slots[slot] = (uint8_t)(index + 1);
    if (KNOWN[index].key == NULL) {
        char key[KNOWN_LENGTH_MAX + 6] = "HTTP_";
        for (size_t i = 0; i < length; i++) {
            unsigned char c = (unsigned char)KNOWN[index].name[i];
            key[5 + i] = (char)(c == '-' ? '_' : c >= 'a' && c <= 'z' ? c - 32 : c);
        }
        state->keys[index] = PyUnicode_InternFromString(key);
    } else if (KNOWN[index].key[0] != '\0') {
        state->keys[index] = PyUnicode_InternFromString(KNOWN[index].key);
    } else {
        return 0;
    }
    return state->keys[index] == NULL ? -1 : 0;
}

static int
module_exec(PyObject *module)
{
    State *state = state_of(module);
    fill_huffman(state);
    for (int i = 0; i < KNOWN_COUNT; i++) {
        if (add_name(state, i) < 0) {
            return -1;
        }
    }
    for (int i = 0; i < METHODS_COUNT; i++) {
        state->methods[i] = PyBytes_FromString(METHODS[i]);
        state->method_texts[i] = PyUnicode_InternFromString(METHODS[i]);
        if (state->methods[i] == NULL || state->method_texts[i] == NULL) {
            return -1;
        }
    }
    for (int i = 0; i < VARIABLES_COUNT; i++) {
        state->variables[i] = PyUnicode_InternFromString(VARIABLES[i]);
        if (state->variables[i] == NULL) {
            return -1;
        }
    }
    for (int i = 0; i < ROUTES_COUNT; i++) {
        state->routes[i] = PyUnicode_InternFromString(ROUTES[i]);
        if (state->routes[i] == NULL) {
            return -1;
        }
    }
    for (int i = 0; i < SCOPE_KEYS_COUNT; i++) {
        state->scope_keys[i] = PyUnicode_InternFromString(SCOPE_KEYS[i]);
        if (state->scope_keys[i] == NULL) {
            return -1;
        }
    }
    for (int i = 0; i < 2; i++) {
        state->versions[i][V_OCTETS] = PyBytes_FromString(VERSIONS[i]);
        state->versions[i][V_TEXT] = PyUnicode_InternFromString(VERSIONS[i]);
        state->versions[i][V_PROTOCOL] = PyUnicode_InternFromString(PROTOCOLS[i]);
        if (!is_whole(state->versions[i], VERSION_FORMS)) {
            return -1;
        }
    }
    PyObject *time = PyImport_ImportModule("time");
    state->clock = time == NULL ? NULL : PyObject_GetAttrString(time, "monotonic_ns");
    Py_XDECREF(time);
    state->empty = PyUnicode_InternFromString("");
    state->request = PyUnicode_InternFromString("werkzeug.request");
    state->nothing = PyFloat_FromDouble(0.0);
    state->no_octets = PyBytes_FromStringAndSize(NULL, 0);
    state->line_type = PyType_FromModuleAndSpec(module, &line_spec, NULL);
    state->head_type = PyType_FromModuleAndSpec(module, &head_spec, NULL);
    state->times_type = PyType_FromModuleAndSpec(module, &times_spec, NULL);
    state->counter_type = PyType_FromModuleAndSpec(module, &counter_spec, NULL);
    if (state->clock == NULL || state->empty == NULL || state->request == NULL || state->nothing == NULL ||
        state->no_octets == NULL || state->line_type == NULL || state->head_type == NULL ||
        state->times_type == NULL || state->counter_type == NULL) {
        return -1;
    }
    return PyModule_AddIntConstant(module, "REVISION", REVISION);
}

static int
module_traverse(PyObject *module, visitproc visit, void *arg)
{
    Py_VISIT(state_of(module)->line_type); /* the types refer to the module */
    Py_VISIT(state_of(module)->head_type);
    Py_VISIT(state_of(module)->times_type);
    Py_VISIT(state_of(module)->counter_type);
    for (int i = 0; i < SCOPE_COPIES_COUNT; i++) { /* they have what applications have put into them */
        Py_VISIT(state_of(module)->scope_copies[i]);
    }
    return 0;
}

static int
module_clear(PyObject *module)
{
    State *state = state_of(module);
    Py_CLEAR(state->line_type);
    Py_CLEAR(state->head_type);
    Py_CLEAR(state->times_type); /* before the spares: from now on there are no new ones */
    while (state->spares_count > 0) {
        PyObject_GC_Del(state->spares[--state->spares_count]);
    }
    Py_CLEAR(state->counter_type);
    Py_CLEAR(state->clock);
    Py_CLEAR(state->empty);
    Py_CLEAR(state->request);
    Py_CLEAR(state->nothing);
    Py_CLEAR(state->no_octets);
    for (int i = 0; i < SCOPE_COPIES_COUNT; i++) {
        Py_CLEAR(state->scope_copies[i]);
    }
    for (int i = 0; i < SCOPE_KEYS_COUNT; i++) {
        Py_CLEAR(state->scope_keys[i]);
    }
    for (int i = 0; i < 2; i++) {
        for (int form = 0; form < VERSION_FORMS; form++) {
            Py_CLEAR(state->versions[i][form]);
        }
    }
    for (int i = 0; i < KNOWN_COUNT; i++) {
        Py_CLEAR(state->names[i]);
        Py_CLEAR(state->keys[i]);
    }
    for (int i = 0; i < VARIABLES_COUNT; i++) {
        Py_CLEAR(state->variables[i]);
    }
    for (int i = 0; i < ROUTES_COUNT; i++) {
        Py_CLEAR(state->routes[i]);
    }
    for (int i = 0; i < METHODS_COUNT; i++) {
        Py_CLEAR(state->methods[i]);
        Py_CLEAR(state->method_texts[i]);
    }
    return 0;
}

static void
module_free(void *module)
{
    module_clear((PyObject *)module);
}

#define FUNCTION(name) METHOD(, name)

static PyMethodDef module_functions[] = {
    FUNCTION(parse_head),
    FUNCTION(make_scope),
    FUNCTION(make_environ),
    FUNCTION(apply_mask),
    FUNCTION(read_frame),
    FUNCTION(decode_fields),
    FUNCTION(read_request),
    FUNCTION(request_block),
    FUNCTION(response_frames),
    FUNCTION(note_times),
    FUNCTION(note_opening),
    FUNCTION(make_counter),
    {NULL, NULL, 0, NULL},
};

static PyModuleDef_Slot module_slots[] = {
    {Py_mod_exec, (void *)module_exec},
#if PY_VERSION_HEX >= 0x030c0000
    {Py_mod_multiple_interpreters, Py_MOD_PER_INTERPRETER_GIL_SUPPORTED},
#endif
    {0, NULL},
};

static struct PyModuleDef module_definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "_speedups",
    .m_doc = "Compiled twins of functions of bridge; bridge.speedups chooses.",
    .m_size = sizeof(State),
    .m_methods = module_functions,
    .m_slots = module_slots,
    .m_traverse = module_traverse,
    .m_clear = module_clear,
    .m_free = module_free,
};

PyMODINIT_FUNC
PyInit__speedups(void)
{
    return PyModuleDef_Init(&module_definition);
}
