"""The look of linne's HTML pages: a style sheet for light and dark, wide and narrow, and the lines that sort tables.

A page needs nothing but itself. Its content policy forbids every request, and every script but the one below.
"""

from __future__ import annotations

import base64
import hashlib
import html
from collections.abc import Sequence

from linne.report import printable

STYLE = """
:root {
  color-scheme: light dark;
  --back: #f4f6f8; --card: #ffffff; --ink: #1d2329; --muted: #616a75; --line: #e3e7eb; --panel: #f3f5f7;
  --right: #0068a3; --wrong: #bf4f00; --tint: rgba(0, 114, 178, .13); --warn: #fff3e0; --warn-line: #e8a04c;
}
@media (prefers-color-scheme: dark) {
  :root {
    --back: #0f1216; --card: #171b21; --ink: #e4e9ee; --muted: #98a2ae; --line: #2d343d; --panel: #20262e;
    --right: #56b4e9; --wrong: #f08a3c; --tint: rgba(86, 180, 233, .18); --warn: #2b2115; --warn-line: #8a5a1f;
  }
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; scroll-behavior: smooth; }
body { margin: 0; background: var(--back); color: var(--ink); line-height: 1.5; overflow-wrap: anywhere;
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", "Noto Sans", sans-serif; }
main { max-width: 1040px; margin: 0 auto; padding: 28px 16px 64px; }
h1, h2, h3 { line-height: 1.25; margin: 0; letter-spacing: -.01em; }
h1 { font-size: 26px; } h2 { font-size: 20px; margin-bottom: 4px; } h3 { font-size: 16px; margin: 22px 0 6px; }
p { margin: 6px 0; max-width: 82ch; }
.muted { color: var(--muted); }
.small { font-size: 14px; }
nav { margin: 14px 0 18px; font-size: 14px; display: flex; flex-wrap: wrap; gap: 4px 16px; }
nav a, a { color: var(--right); text-decoration: none; } nav a:hover, a:hover { text-decoration: underline; }
section { background: var(--card); border: 1px solid var(--line); border-radius: 12px; padding: 22px 24px;
  margin-bottom: 18px; }
.hero { display: grid; grid-template-columns: auto 1fr; gap: 6px 28px; align-items: center; }
.number { font-size: 68px; font-weight: 700; letter-spacing: -.035em; line-height: 1; white-space: nowrap;
  color: var(--right); font-variant-numeric: tabular-nums; }
.number small { font-size: 34px; font-weight: 600; letter-spacing: 0; }
.what { font-size: 20px; font-weight: 600; line-height: 1.3; margin: 0 0 4px; }
.scale { grid-column: 1 / -1; margin-top: 16px; }
.track { position: relative; height: 12px; border-radius: 6px; background: var(--panel); }
.track i, .track b, .track u { position: absolute; top: 0; bottom: 0; }
.track i { background: var(--right); opacity: .38; min-width: 3px; border-radius: 3px; }
.track b { width: 4px; margin-left: -2px; background: var(--right); top: -4px; bottom: -4px; border-radius: 2px; }
.track u { width: 2px; margin-left: -1px; background: var(--muted); top: -2px; bottom: -2px; }
.ends { display: flex; justify-content: space-between; font-size: 13px; color: var(--muted); margin-top: 6px; gap: 12px;
  text-align: center; }
.ends span:first-child, .ends span:last-child { white-space: nowrap; }
.warning { background: var(--warn); border-color: var(--warn-line); font-weight: 600; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(134px, 1fr)); gap: 1px; margin-top: 20px;
  border: 1px solid var(--line); border-radius: 10px; overflow: hidden; }
.tiles div { box-shadow: 0 0 0 1px var(--line); padding: 10px 14px; }
.tiles strong { display: block; font-size: 19px; white-space: nowrap; font-variant-numeric: tabular-nums; }
.tiles span { font-size: 13px; color: var(--muted); }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 6px 22px; margin: 10px 0 0; }
dt { color: var(--muted); } dt:empty { display: none; } dt:empty + dd { grid-column: 2; } dd { margin: 0; }
.scroll { overflow-x: auto; margin: 8px -24px 0; padding: 0 24px; }
.tall { max-height: 560px; overflow-y: auto; }
figure { margin: 0; }
figure img { display: block; max-width: 100%; height: auto; margin: 0 auto; }
.pixels { image-rendering: pixelated; }
td { overflow-wrap: break-word; } td:first-child { min-width: 110px; } td code { overflow-wrap: normal; }
table { border-collapse: collapse; width: 100%; font-size: 15px; }
th, td { text-align: left; padding: 6px 14px 6px 0; border-bottom: 1px solid var(--line); vertical-align: top; }
th { color: var(--muted); font-weight: 500; font-size: 14px; white-space: nowrap; position: sticky; top: 0;
  background: var(--card); }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; padding: 6px 0 6px 18px; }
.sortable th button { all: unset; cursor: pointer; } .sortable th button:hover { color: var(--ink); }
.sortable th button:focus-visible { outline: 2px solid var(--right); outline-offset: 3px; border-radius: 2px; }
th[aria-sort=ascending] button::after { content: " \\2191"; }
th[aria-sort=descending] button::after { content: " \\2193"; }
td.bar { background: linear-gradient(var(--tint), var(--tint)) no-repeat right top / var(--w) 24px content-box; }
.grid { display: grid; grid-template-columns: repeat(auto-fill, minmax(104px, 1fr)); gap: 16px 14px;
  margin: 14px 0 0; padding: 0; list-style: none; }
.grid li { min-width: 0; font-size: 14px; line-height: 1.3; }
.frame { aspect-ratio: 1; display: grid; place-items: center; background: var(--panel); overflow: hidden;
  border-radius: 6px 6px 0 0; border-bottom: 3px solid var(--right); }
.wrong .frame { border-color: var(--wrong); }
.frame img { width: 100%; height: 100%; object-fit: contain; display: block; }
.answer { display: flex; justify-content: space-between; gap: 6px; margin-top: 5px; color: var(--right);
  font-weight: 600; }
.answer span { color: var(--muted); font-weight: 400; white-space: nowrap; font-variant-numeric: tabular-nums; }
.wrong .answer { color: var(--wrong); }
.answer b, .truth, .name { display: -webkit-box; -webkit-box-orient: vertical; -webkit-line-clamp: 2;
  overflow: hidden; }
.answer b { font-weight: 600; }
.name { color: var(--muted); font-size: 12px; }
pre, code { font: 14px/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, "Liberation Mono", monospace; }
pre { background: var(--panel); border-radius: 8px; padding: 10px 14px; margin: 6px 0 16px; overflow-x: auto;
  overflow-wrap: normal; }
details summary { cursor: pointer; color: var(--right); margin-top: 12px; }
footer { color: var(--muted); font-size: 13px; text-align: center; }
@media (max-width: 640px) {
  main { padding: 16px 10px 40px; }
  section { padding: 18px 16px; }
  .hero { grid-template-columns: 1fr; }
  .number { font-size: 56px; }
  .scroll { margin: 8px -16px 0; padding: 0 16px; }
  table, th { font-size: 13.5px; } td:first-child { min-width: 64px; } td.n, th.n { padding-left: 8px; }
  th, td { padding-right: 8px; }
  .wide img { max-width: none; width: 680px; }
  .square img { max-width: none; width: max(100%, 440px); }
  dl { grid-template-columns: 1fr; gap: 0; } dl dd { margin-bottom: 8px; grid-column: 1 !important; }
  .grid { grid-template-columns: repeat(auto-fill, minmax(88px, 1fr)); gap: 14px 10px; }
}
@media print { body { background: none; } section { break-inside: avoid; } nav { display: none; }
  .tall { max-height: none; } }
"""

SCRIPT = """
for (const table of document.querySelectorAll("table.sortable")) {
  table.querySelectorAll("th").forEach((head, column) => {
    const button = document.createElement("button");
    button.textContent = head.textContent;
    head.replaceChildren(button);
    button.onclick = () => {
      const key = row => row.cells[column].dataset.v;
      const numbers = head.classList.contains("n");
      const up = head.getAttribute("aria-sort") !== "ascending";
      const rows = [...table.tBodies[0].rows].sort((a, b) =>
        numbers ? key(a) - key(b) : key(a).localeCompare(key(b), undefined, {numeric: true}));
      table.tBodies[0].append(...(up ? rows : rows.reverse()));
      table.querySelectorAll("th").forEach(other => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
    };
  });
}
"""


def document(title: str, subtitle: str, lead: str, sections: Sequence[tuple[str, str, str]]) -> str:
    """Return an HTML page: `lead`, then `sections` of (name, heading, HTML); `lead` and the HTML are taken as given."""
    links = "".join(f'<a href="#{name}">{name}</a>' for name, _, _ in sections)
    body = "".join(f'<section id="{name}"><h2>{heading}</h2>{inside}</section>' for name, heading, inside in sections)
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_policy()}">\n'
        f"<title>{escaped(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body><main>\n"
        f'<header><h1>{escaped(title)}</h1><p class="muted">{escaped(subtitle)}</p></header>\n'
        f"<nav>{links}</nav>\n{lead}{body}\n{FOOTER}\n"
        f"</main><script>{SCRIPT}</script></body>\n</html>\n"
    )


FOOTER = "<footer>written by linne</footer>"


def escaped(text: str) -> str:
    """Return a text from outside, such as a file's name, fit to stand in HTML."""
    return html.escape(printable(text))


def data_uri(kind: str, content: bytes) -> str:
    """Return an image (`kind` is `png` or `jpeg`) as an address that holds it."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode('ascii')}"


def _policy() -> str:
    digest = base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()
    return f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
