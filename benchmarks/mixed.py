"""Requests as a server behind a proxy sees them: of many different clients, and no head twice.

``templates`` makes thousands of request heads with the fields of browsers, crawlers, mobile applications and programs
in their own sets, orders and spellings, with what their proxies add, and now and then with content. A number of its own
stands in every request's query, cookie and request id. So a server that remembers whole heads, or whole sections of
fields, never meets one again, while single lines repeat as they do in life.

wrk takes the templates from a file (``python -m benchmarks.mixed > TEMPLATES``) and puts them together itself
(load.lua), in the same order and with the same numbers as ``requests`` here. Everything follows from the seed.
"""

import functools
import random
import sys
from collections.abc import Iterator

NUMBER = b"\x01"  # where the request's own number stands in a template
END = b"\x02"  # after each template of a file
WIDTH = 10  # digits of a number
COUNT = 4000  # templates
SEED = 14
CONTENTS = 0.06  # of the requests have content
# Each load of one server takes its numbers from a part of its own, so that the warm-up does not send what follows.
PART = 50_000_000
PARTS = 100
CHECKED = PARTS - 1  # the part of the requests whose answers are checked
# number -> the digits: a bijection below 10 ** WIDTH, for the factor is prime to 10, and exact in Lua's doubles.
FACTOR = 7919
# The next template: Park and Miller's generator, exact in doubles too.
MULTIPLIER, MODULUS = 16807, 2**31 - 1

Fields = list[tuple[str, str]]


def words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


LANGUAGES = words(
    "en-US,en;q=0.9 en-GB,en;q=0.8,de;q=0.5 de-DE,de;q=0.9,en-US;q=0.8,en;q=0.7 fr-FR,fr;q=0.9,en;q=0.6 "
    "ja,en-US;q=0.9,en;q=0.8 es-ES,es;q=0.9 pt-BR,pt;q=0.9,en-US;q=0.8,en;q=0.7 it-IT,it;q=0.9,en-US;q=0.7 "
    "zh-CN,zh;q=0.9,en;q=0.8 ru-RU,ru;q=0.9,en-US;q=0.8,en;q=0.7 nl,en-US;q=0.7,en;q=0.3 pl-PL,pl;q=0.9,en-US;q=0.8 "
    "sv-SE,sv;q=0.9,en-US;q=0.8,en;q=0.7 tr-TR,tr;q=0.9 ko-KR,ko;q=0.9,en-US;q=0.8 en-US,en;q=0.5"
)
HOSTS = words("www.shop.example shop.example api.shop.example m.shop.example blog.shop.example")
WORDS = words(
    "account articles basket blog boots cart category checkout coats daily delivery events garden gifts help home "
    "jackets kitchen lamps latest login map new news offers orders outdoor pages people photos prices products "
    "profile reviews sale search shirts shoes sizes static stores summer tables tags tools travel video winter wool"
)
NAMES = words("q page sort lang size colour ref utm_source utm_medium utm_campaign filter view tab from to limit")
COOKIES = words("theme locale currency consent ab_test seen_banner cart_id region tz last_visit plan experiment")
ENCODINGS = ("gzip, deflate, br, zstd", "gzip, deflate, br", "gzip, deflate", "gzip")
PAGE = (
    "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,image/apng,*/*;q=0.8",
    "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
    "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8",
)
DATA = ("application/json, text/plain, */*", "*/*", "application/json", "application/json, */*;q=0.5")
SYSTEMS = (
    "Windows NT 10.0; Win64; x64",
    "Macintosh; Intel Mac OS X 10_15_7",
    "X11; Linux x86_64",
    "Linux; Android 10; K",
)
PLATFORMS = ('"Windows"', '"macOS"', '"Linux"', '"Android"')


class Maker:
    """Makes templates from one source of chance."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance

    def one_of(self, values: tuple[str, ...] | list[str]) -> str:
        return self.chance.choice(values)

    def sometimes(self, part: float) -> bool:
        return self.chance.random() < part

    def hexadecimal(self, digits: int) -> str:
        return f"{self.chance.getrandbits(4 * digits):0{digits}x}"

    def address(self) -> str:
        return ".".join(str(self.chance.randint(1, 254)) for _ in range(4))

    def path(self) -> str:
        """Return a target: one to four parts, at times escaped, with the request's number in its query."""
        parts = [self.one_of(WORDS) for _ in range(self.chance.randint(1, 4))]
        if self.sometimes(0.3):
            parts.append(str(self.chance.randint(1, 99999)))
        if self.sometimes(0.05):
            parts.append("caf%C3%A9%20" + self.one_of(WORDS))
        pairs = [f"{name}={self.query_value()}" for name in self.chance.sample(NAMES, self.chance.randint(0, 3))]
        pairs.insert(self.chance.randint(0, len(pairs)), self.one_of(["id", "v", "_", "t", "session"]) + "={n}")
        return "/" + "/".join(parts) + "?" + "&".join(pairs)

    def query_value(self) -> str:
        if self.sometimes(0.1):
            return f"{self.one_of(WORDS)}%20{self.one_of(WORDS)}"
        return self.one_of(WORDS) if self.sometimes(0.6) else str(self.chance.randint(1, 500))

    def cookie(self) -> str:
        """Return one to six cookies, one of them with the request's number."""
        pairs = [f"{name}={self.cookie_value()}" for name in self.chance.sample(COOKIES, self.chance.randint(0, 4))]
        pairs.insert(self.chance.randint(0, len(pairs)), f"session={self.hexadecimal(8)}{{n}}{self.hexadecimal(4)}")
        if self.sometimes(0.3):
            pairs.append(f"csrftoken={self.hexadecimal(32)}")
        if self.sometimes(0.4):
            pairs.append(f"_ga=GA1.2.{self.chance.randint(10**8, 10**9)}.{self.chance.randint(10**9, 2 * 10**9)}")
        return "; ".join(pairs)

    def cookie_value(self) -> str:
        return self.one_of(WORDS) if self.sometimes(0.5) else self.hexadecimal(self.chance.choice((4, 12, 24)))

    def referer(self, host: str) -> str:
        if self.sometimes(0.2):
            return self.one_of(["https://www.google.com/", "https://duckduckgo.com/", "https://news.example/"])
        return f"https://{host}/{self.one_of(WORDS)}/{self.one_of(WORDS)}"

    def chromium(self, host: str, posts: bool) -> Fields:
        major = self.chance.randint(118, 146)
        system = self.chance.randrange(len(SYSTEMS))
        mobile = "?1" if system == 3 else "?0"
        brand = self.one_of(["Google Chrome", "Microsoft Edge", "Chromium"])
        agent = f"Mozilla/5.0 ({SYSTEMS[system]}) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/{major}.0.0.0 "
        agent += ("Mobile " if system == 3 else "") + "Safari/537.36"
        agent += f" Edg/{major}.0.0.0" if brand == "Microsoft Edge" else ""
        hints = [
            ("sec-ch-ua", f'"Chromium";v="{major}", "{brand}";v="{major}", "Not?A_Brand";v="{major % 90}"'),
            ("sec-ch-ua-mobile", mobile),
            ("sec-ch-ua-platform", PLATFORMS[system]),
        ]
        fields: Fields = [("Connection", "keep-alive")]
        if self.sometimes(0.5) and not posts:  # a page
            fields += [("Cache-Control", "max-age=0")] if self.sometimes(0.3) else []
            fields += [*hints, ("Upgrade-Insecure-Requests", "1"), ("User-Agent", agent), ("Accept", PAGE[0])]
            fields += [("Sec-Fetch-Site", "same-origin"), ("Sec-Fetch-Mode", "navigate"), ("Sec-Fetch-User", "?1")]
            fields += [("Sec-Fetch-Dest", "document")]
        else:  # a script's request, or an image's
            fields += [hints[2], ("User-Agent", agent), *hints[:2], ("Accept", self.one_of(DATA))]
            fields += [("Origin", f"https://{host}")] if posts else []
            fields += [("Sec-Fetch-Site", "same-origin"), ("Sec-Fetch-Mode", "cors"), ("Sec-Fetch-Dest", "empty")]
        fields += [("Referer", self.referer(host))] if self.sometimes(0.8) else []
        fields += [("Accept-Encoding", ENCODINGS[0]), ("Accept-Language", self.one_of(LANGUAGES))]
        return [*fields, ("Cookie", self.cookie())]

    def firefox(self, host: str, posts: bool) -> Fields:
        major = self.chance.randint(115, 145)
        system = self.one_of(SYSTEMS[:3])
        fields = [("User-Agent", f"Mozilla/5.0 ({system}; rv:{major}.0) Gecko/20100101 Firefox/{major}.0")]
        fields += [("Accept", self.one_of(DATA) if posts else PAGE[1])]
        fields += [("Accept-Language", self.one_of(LANGUAGES)), ("Accept-Encoding", self.one_of(ENCODINGS[:2]))]
        fields += [("Origin", f"https://{host}")] if posts else []
        fields += [("DNT", "1")] if self.sometimes(0.3) else []
        fields += [("Connection", "keep-alive")]
        fields += [("Referer", self.referer(host))] if self.sometimes(0.7) else []
        fields += [("Cookie", self.cookie())]
        if self.sometimes(0.6):
            fields += [("Upgrade-Insecure-Requests", "1"), ("Sec-Fetch-Dest", "document")]
            fields += [("Sec-Fetch-Mode", "navigate"), ("Sec-Fetch-Site", "none")]
        fields += [("If-None-Match", f'"{self.hexadecimal(12)}-{{n}}"')] if self.sometimes(0.2) else []
        return [*fields, ("Priority", self.one_of(["u=0, i", "u=1", "u=4"]))] if major > 127 else fields

    def safari(self, host: str, posts: bool) -> Fields:
        version = f"{self.chance.randint(15, 26)}.{self.chance.randint(0, 6)}"
        if self.sometimes(0.6):
            system = f"iPhone; CPU iPhone OS {version.replace('.', '_')} like Mac OS X"
            tail = f"Version/{version} Mobile/15E148 Safari/604.1"
        else:
            system, tail = "Macintosh; Intel Mac OS X 10_15_7", f"Version/{version} Safari/605.1.15"
        agent = f"Mozilla/5.0 ({system}) AppleWebKit/605.1.15 (KHTML, like Gecko) {tail}"
        fields = [("Accept", self.one_of(DATA) if posts else PAGE[1])]
        fields += [("Sec-Fetch-Site", "none"), ("Cookie", self.cookie())] if self.sometimes(0.5) else []
        fields += [("Accept-Encoding", ENCODINGS[1]), ("Sec-Fetch-Mode", "navigate"), ("User-Agent", agent)]
        fields += [("Referer", self.referer(host))] if self.sometimes(0.6) else []
        fields += [("Accept-Language", self.one_of(LANGUAGES)), ("Connection", "keep-alive")]
        return fields if any(name == "Cookie" for name, _ in fields) else [*fields, ("Cookie", self.cookie())]

    def crawler(self, host: str, posts: bool) -> Fields:
        """Return a crawler's or a monitor's fields; the cookie is the balancer's, which keeps it on one server."""
        agent = self.one_of(
            [
                "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)",
                "Mozilla/5.0 (compatible; bingbot/2.0; +http://www.bing.com/bingbot.htm)",
                "Mozilla/5.0 AppleWebKit/537.36 (KHTML, like Gecko; compatible; GPTBot/1.2; +https://openai.com/gptbot)",
                "Mozilla/5.0 (compatible; AhrefsBot/7.0; +http://ahrefs.com/robot/)",
                "Mozilla/5.0 (compatible; YandexBot/3.0; +http://yandex.com/bots)",
                "facebookexternalhit/1.1 (+http://www.facebook.com/externalhit_uatext.php)",
                "Mozilla/5.0+(compatible; UptimeRobot/2.0; http://www.uptimerobot.com/)",
            ]
        )
        fields = [("Connection", "keep-alive"), ("Accept", self.one_of([*PAGE, "*/*"])), ("User-Agent", agent)]
        fields += [("From", "bot@crawler.example")] if self.sometimes(0.4) else []
        fields += [("Accept-Encoding", self.one_of(ENCODINGS[1:]))]
        fields += [("If-Modified-Since", "Tue, 03 Nov 2026 08:12:31 GMT")] if self.sometimes(0.3) else []
        self.chance.shuffle(fields)
        return [*fields, ("Cookie", f"balance={self.hexadecimal(6)}{{n}}")]

    def application(self, host: str, posts: bool) -> Fields:
        """Return the fields of an application on a telephone."""
        build = f"{self.chance.randint(2, 9)}.{self.chance.randint(0, 40)}.{self.chance.randint(0, 9)}"
        system, model = self.chance.randint(9, 16), self.chance.randint(1, 9)
        agent = self.one_of(
            [
                f"ShopApp/{build} (Android {system}; SM-G99{model}B) okhttp/4.12.0",
                f"ShopApp/{build} CFNetwork/{self.chance.randint(1300, 1600)}.0.2 Darwin/{system + 9}.3.0",
                f"Dalvik/2.1.0 (Linux; U; Android {system}; Pixel {model})",
            ]
        )
        fields = [("accept", "application/json"), ("accept-language", self.one_of(LANGUAGES).partition(",")[0])]
        fields += [("user-agent", agent), ("accept-encoding", self.one_of(ENCODINGS[1:]))]
        token = f"{self.hexadecimal(20)}.{self.hexadecimal(96)}.{self.hexadecimal(43)}"
        fields += [("authorization", f"Bearer {token}")] if self.sometimes(0.7) else []
        fields += [("x-app-version", build), ("x-device-id", f"{self.hexadecimal(8)}-{self.hexadecimal(12)}")]
        fields += [("x-platform", self.one_of(["android", "ios"]))] if self.sometimes(0.5) else []
        fields += [("if-none-match", f'W/"{self.hexadecimal(10)}"')] if self.sometimes(0.3) else []
        self.chance.shuffle(fields)
        return [*fields, ("cookie", self.cookie())]

    def program(self, host: str, posts: bool) -> Fields:
        """Return the fields of a script or of another service."""
        agent = self.one_of(
            [
                f"python-requests/2.{self.chance.randint(25, 32)}.{self.chance.randint(0, 5)}",
                f"axios/1.{self.chance.randint(1, 9)}.{self.chance.randint(0, 9)}",
                "Go-http-client/1.1",
                f"curl/8.{self.chance.randint(0, 17)}.0",
                f"Java-http-client/{self.chance.randint(11, 25)}.0.{self.chance.randint(1, 9)}",
            ]
        )
        fields = [("User-Agent", agent), ("Accept", self.one_of(DATA))]
        fields += [("Accept-Encoding", self.one_of(ENCODINGS))] if self.sometimes(0.7) else []
        fields += [("X-Api-Key", self.hexadecimal(32))] if self.sometimes(0.5) else []
        fields += [("Idempotency-Key", f"{self.hexadecimal(8)}-{{n}}")] if posts else []
        return [*fields, ("Cookie", f"session={self.hexadecimal(8)}{{n}}")]

    def proxy(self, host: str) -> tuple[Fields, Fields]:
        """Return what a proxy in front puts before the client's fields and behind them; one is a request id."""
        client, inner = self.address(), f"10.0.{self.chance.randint(0, 9)}.{self.chance.randint(1, 254)}"
        [kind] = self.chance.choices(range(6), [30, 20, 18, 8, 12, 12])
        if kind == 0:  # as nginx is set up by most guides
            before = [("Host", host), ("X-Real-IP", client), ("X-Forwarded-For", client)]
            return [*before, ("X-Forwarded-Proto", "https"), ("X-Request-ID", f"{self.hexadecimal(22)}{{n}}")], []
        if kind == 1:  # HAProxy
            behind = [("X-Forwarded-For", client), ("X-Forwarded-Proto", "https")]
            return [("host", host)], [*behind, ("x-request-id", f"{self.hexadecimal(8)}-{{n}}")]
        if kind == 2:  # a balancer of a large cloud
            before = [("X-Forwarded-For", client), ("X-Forwarded-Proto", "https"), ("X-Forwarded-Port", "443")]
            before += [("Host", host), ("X-Amzn-Trace-Id", f"Root=1-{self.hexadecimal(8)}-{self.hexadecimal(14)}{{n}}")]
            return [*before, ("X-Request-Id", f"{self.hexadecimal(6)}{{n}}")], []
        if kind == 3:  # a content delivery network before nginx
            before = [("Host", host), ("X-Forwarded-For", f"{client}, {inner}"), ("X-Forwarded-Proto", "https")]
            behind = [("CF-RAY", f"{self.hexadecimal(16)}-FRA"), ("CF-Connecting-IP", client)]
            behind += [("CDN-Loop", "cloudflare"), ("CF-IPCountry", self.one_of(["DE", "FR", "US", "JP", "BR", "IN"]))]
            behind += [("CF-Visitor", '{"scheme":"https"}')]
            return [*before, ("X-Request-ID", f"{self.hexadecimal(16)}{{n}}")], behind
        if kind == 4:  # Envoy and a service mesh
            before = [("host", host), ("x-forwarded-for", client), ("x-forwarded-proto", "https")]
            behind = [("x-request-id", f"{self.hexadecimal(8)}-{self.hexadecimal(4)}-{{n}}")]
            behind += [("x-envoy-attempt-count", "1")]
            return before, [*behind, ("traceparent", f"00-{self.hexadecimal(22)}{{n}}-{self.hexadecimal(16)}-01")]
        behind = [("Via", "1.1 google"), ("Forwarded", f"for={client};proto=https")]
        return [("Host", host)], [*behind, ("X-Request-ID", f"{self.hexadecimal(12)}{{n}}")]

    def content(self) -> tuple[str, str]:
        """Return content with its type; its length does not depend on the number."""
        if self.sometimes(0.5):
            pairs = [f"{name}={self.query_value()}" for name in self.chance.sample(NAMES, self.chance.randint(2, 9))]
            return "&".join([*pairs, "id={n}"]), "application/x-www-form-urlencoded"
        members = [
            f'"{name}": "{self.one_of(WORDS)}"' for name in self.chance.sample(NAMES, self.chance.randint(2, 12))
        ]
        return "{n}".join(['{"id": "', '", ' + ", ".join(members) + "}"]), "application/json"

    def request(self) -> bytes:
        """Return one template."""
        kinds = [self.chromium, self.firefox, self.safari, self.crawler, self.application, self.program]
        [kind] = self.chance.choices(kinds, [30, 8, 18, 18, 14, 12])
        posts = kind != self.crawler and self.sometimes(CONTENTS / 0.82)  # 18 of 100 are crawlers, which send none
        host = self.one_of(HOSTS)
        before, behind = self.proxy(host)
        fields = kind(host, posts)
        content = ""
        if posts:
            content, media = self.content()
            length = len(content) + WIDTH - len("{n}")
            fields.insert(self.chance.randint(0, 3), ("Content-Type", media))
            fields.insert(0, ("Content-Length", str(length)))
        lines = [f"{'POST' if posts else 'GET'} {self.path()} HTTP/1.1"]
        lines += [f"{name}: {value}" for name, value in [*before, *fields, *behind]]
        return "\r\n".join([*lines, "", content]).encode("ascii").replace(b"{n}", NUMBER)


@functools.cache
def templates(seed: int = SEED, count: int = COUNT) -> tuple[bytes, ...]:
    """Return *count* request templates: whole requests with NUMBER in place of their number."""
    maker = Maker(random.Random(seed))
    return tuple(maker.request() for _ in range(count))


def file_text(seed: int = SEED, count: int = COUNT) -> bytes:
    """Return the templates as load.lua reads them."""
    return b"".join(template + END for template in templates(seed, count))


def digits(number: int) -> bytes:
    """Return a request's own digits: others for every number."""
    return b"%0*d" % (WIDTH, number * FACTOR % 10**WIDTH)


def requests(part: int = 0, seed: int = SEED, count: int = COUNT) -> Iterator[bytes]:
    """Yield the requests of one part in the order in which load.lua sends them.

    Raises:
        ValueError: there is no such part.
    """
    if not 0 <= part < PARTS:
        raise ValueError(f"part {part}: 0 to {PARTS - 1}")
    made = templates(seed, count)
    state = seed + part * 1009 + 1
    for number in range(part * PART, (part + 1) * PART):
        state = state * MULTIPLIER % MODULUS
        yield digits(number).join(made[state % count].split(NUMBER))


def checked_requests() -> list[bytes]:
    """Return a few requests whose answers are worth a look before a load: the first thirty, and five with content."""
    made = requests(CHECKED)
    first = [next(made) for _ in range(30)]
    with_content = (request for request in made if request.startswith(b"POST "))
    return [*first, *(next(with_content) for _ in range(5))]


if __name__ == "__main__":
    sys.stdout.buffer.write(file_text())
