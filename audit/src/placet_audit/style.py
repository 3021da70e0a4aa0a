"""How the page looks: on screens of any width, in the dark, and on paper."""

STYLE = """
:root { --ink: #1d232b; --soft: #5b6673; --line: #d9dee5; --paper: #ffffff; --wash: #f5f7f9;
  --good: #1a7f4b; --bad: #b3261e; --odd: #96600a; --live: #1f5fb0; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9ee; --soft: #9aa5b3; --line: #333b46;
  --paper: #14181d; --wash: #1b2027; --good: #5fc894; --bad: #ff8a80; --odd: #e2ae57;
  --live: #82b5f5; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
main { max-width: 54rem; margin: 0 auto; padding: 2.5rem 1.25rem 4rem; }
h1 { font-size: 2rem; line-height: 1.2; margin: 0; overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; margin: 2.5rem 0 .75rem; }
h2 small { color: var(--soft); font-weight: 400; font-size: .8rem; }
h3 { font-size: 1rem; font-weight: 600; margin: 0; overflow-wrap: anywhere; }
p { margin: .15rem 0; overflow-wrap: anywhere; }
code, .id { font: .86em ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; }
.kicker { color: var(--soft); margin: 0; }
.id, .meta, footer { color: var(--soft); overflow-wrap: anywhere; }
.meta { font-size: .85rem; }
.verdict { border: 1px solid var(--line); border-left: 6px solid var(--good); border-radius: 8px;
  padding: 1rem 1.25rem; margin-top: 1.5rem; background: var(--wash); }
.verdict h2 { margin: 0; color: var(--good); font-size: 1.35rem; }
.verdict.bad { border-left-color: var(--bad); } .verdict.bad h2 { color: var(--bad); }
.numbers { display: flex; flex-wrap: wrap; gap: .5rem 2rem; margin-top: .75rem; }
.numbers b { font-size: 1.5rem; display: block; line-height: 1.2;
  font-variant-numeric: tabular-nums; }
.numbers span { color: var(--soft); font-size: .85rem; }
.finding { border: 1px solid var(--line); border-left: 6px solid var(--bad); border-radius: 8px;
  padding: .75rem 1rem; margin: .6rem 0; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .35rem .75rem .35rem 0; border-bottom: 1px solid var(--line); }
thead th { color: var(--soft); font-weight: 400; font-size: .85rem; }
.missing { color: var(--odd); }
.timeline { list-style: none; margin: 0; padding: 0; }
.timeline .day { font-weight: 600; color: var(--soft); padding: 1rem 0 .35rem; }
.event { display: grid; grid-template-columns: 5rem 1fr; gap: .25rem 1rem; padding: .55rem 0;
  break-inside: avoid; }
.event time { color: var(--soft); font-variant-numeric: tabular-nums; padding-top: .05rem; }
.event > div { border-left: 4px solid var(--line); padding-left: .9rem; }
.event.taken > div { border-color: var(--good); }
.event.released > div { border-color: var(--live); }
.event.odd > div { border-color: var(--odd); }
.event.refused > div { border-color: var(--odd); border-left-style: dotted; }
.event.wrong > div { border-color: var(--bad); } .event.wrong h3 { color: var(--bad); }
.event.quiet h3 { font-weight: 400; color: var(--soft); }
.notes { padding-left: 1.2rem; }
footer { margin-top: 3rem; font-size: .85rem; border-top: 1px solid var(--line);
  padding-top: 1rem; }
@media (max-width: 34rem) { .event { grid-template-columns: 1fr; }
  table { display: block; overflow-x: auto; } }
@media print { main { max-width: none; padding: 0; } }
"""
