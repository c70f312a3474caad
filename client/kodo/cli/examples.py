"""What a command looks like when it is used: shown at the end of its help."""

from __future__ import annotations

__all__ = ["EXAMPLES", "epilog"]

EXAMPLES: dict[str, tuple[str, ...]] = {
    "new": ("koco new greeting", "koco new trip --graph"),
    "flows": ("koco flows --search '*atlas*'", "koco flows --node flows.example.com"),
    "show": ("koco show 'Code Atlas'", "koco show flows.example.com/flows.market.competitor"),
    "webhooks": ("koco webhooks --test", "koco webhooks --secrets"),
    "forget": ("koco forget flows.example.com",),
    "run": (
        "koco run 'Code Atlas' --out atlas/",
        "koco run flows.example.com/Greeting name=Ada times=2 --detach",
        "koco run ./greeting.py:greet name=Ada",
        "koco run --like NODE/FID name=Ben",
        "koco run flows.example.com/Crawl key=- proxy=env:PROXY",
    ),
    "schedule": (
        "koco schedule Report --cron '0 7 * * MON-FRI' --tz Europe/Berlin topic=bikes",
        "koco schedule Report --at '2026-12-01 07:00' topic=bikes",
        "koco schedule Report --every 12h --overlap queue topic=bikes",
    ),
    "schedules": ("koco schedules --pause NODE/SID",),
    "unschedule": ("koco unschedule NODE/SID",),
    "follow": ("koco follow NODE/FID --after 20",),
    "answer": (
        "koco answer NODE/FID yes",
        "koco answer NODE/FID LID topic=bikes depth=2",
        "koco answer NODE/FID --yes",
    ),
    "kill": ("koco kill NODE/FID", "koco kill --flow '*report*' --state locked"),
    "delete": ("koco delete NODE/FID", "koco delete --state error --until 2026-11-01 --yes"),
    "download": (
        "koco download NODE/FID --out atlas/",
        "koco download NODE/FID report.md",
        "koco download --tag monday --out reports/",
    ),
    "share": (
        "koco share NODE/FID --expires 2d --downloads 1",
        "koco share NODE/FID --host https://flows.example.com",
        "koco share NODE/FID --host https://flows.example.com --qr",
        "koco share NODE/FID --to ana --to role:team --level 2",
    ),
    "invite": (
        "koco invite Report topic=bikes --launches 3 --note 'Your turn'",
        "koco invite Report --expires 1d --see",
    ),
    "open_link": ("koco open - --out reports/", "koco open env:LINK --runs"),
    "unshare": ("koco unshare NODE/SID",),
    "get": ("koco get - --out atlas/", "koco get env:LINK --out atlas/", "koco get kodo:TOKEN --out atlas/"),
    "login": (
        "koco login --node flows.example.com --code -",
        "koco login --node flows.example.com --name ana",
    ),
    "up": ("koco up greeting.py", "koco up scope.yaml --port 4711", "koco up scope.yaml --auth local"),
    "doctor": ("koco doctor", "koco doctor --to flows.example.com"),
    "backup": ("koco backup node.tar.gz", "koco backup node.tar.gz --keys"),
    "restore": ("koco restore node.tar.gz --home /var/lib/kodo",),
    "web": ("koco web", "koco web --registry https://registry.example.com --no-browser"),
    "mcp": (
        "koco mcp --print-config claude --node flows.example.com",
        "koco mcp --node flows.example.com --flow 'flows.market.*' --files ~/papers",
    ),
    "user_add": ("koco user add ana", "koco user add ben --role team --password"),
    "user_enrol": ("koco user enrol ana 12D3KooW…",),
    "user_grant": ("koco user grant ana team 'developer:flows.market.*'", "koco user grant ana 'flow://flows.*/1/r'"),
    "role_grant": ("koco role grant team 'node://*' 'flow://flows.market.*/2/x'",),
}
"""By the name of a command's function."""


def epilog(function: str) -> str | None:
    """Return what stands below a command's options: its examples, if there are any."""
    lines = EXAMPLES.get(function)
    return "\n\n".join(["Examples:", *(f"  {each}" for each in lines)]) if lines else None
