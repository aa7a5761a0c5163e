"""The style sheet of the report page: one block of variables per colour scheme, the rest shared."""

STYLE = """
:root { color-scheme: light dark;
  --page: #f7f7f5; --card: #ffffff; --ink: #1b1b19; --soft: #63625e; --rule: #e3e2dd; --mark: #eaf2fd;
  --inlier: #2a78d6; --outlier: #eb6834;
  --s0: #2a78d6; --s1: #eb6834; --s2: #1baf7a; --s3: #c98a00;
  --s4: #4a3aa7; --s5: #d6568f; --s6: #0b7a0b; --s7: #d03b3b; }
@media (prefers-color-scheme: dark) { :root {
  --page: #161615; --card: #1f1f1d; --ink: #f1f0ec; --soft: #a5a49d; --rule: #383733; --mark: #1d2f47;
  --inlier: #4a95ea; --outlier: #e8743f;
  --s0: #4a95ea; --s1: #e8743f; --s2: #24b483; --s3: #d9a21b;
  --s4: #9b90f0; --s5: #e078a8; --s6: #4caf50; --s7: #ec7070; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", sans-serif; }
main { max-width: 1180px; margin: 0 auto; padding: 28px 20px 60px; }
h1 { font-size: 26px; line-height: 1.25; margin: 0 0 6px; }
h2 { font-size: 18px; margin: 0 0 8px; }
h3 { font-size: 15px; margin: 22px 0 4px; }
section > h3:first-of-type { margin-top: 6px; }
.note { margin: 6px 0 0; max-width: 110ch; }
code { font-size: 0.92em; background: var(--rule); border-radius: 4px; padding: 1px 5px; }
.hint { color: var(--soft); font-size: 13px; margin: 0 0 10px; max-width: 100ch; }
section { background: var(--card); border: 1px solid var(--rule); border-radius: 10px;
  padding: 18px 20px; margin-top: 18px; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(210px, 1fr)); gap: 12px; margin-top: 18px; }
.tile { background: var(--card); border: 1px solid var(--rule); border-radius: 10px; padding: 14px 16px; }
.tile .value { font-size: 26px; font-weight: 650; line-height: 1.3; }
.tile .name { color: var(--soft); font-size: 13px; overflow-wrap: anywhere; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: 14px; font-variant-numeric: tabular-nums; }
th, td { padding: 6px 8px; text-align: right; white-space: nowrap; border-bottom: 1px solid var(--rule); }
th:first-child { text-align: left; position: sticky; left: 0; background: var(--card); }
thead th { color: var(--soft); font-weight: 600; }
tbody th { font-weight: 600; }
tbody tr:last-child > * { border-bottom: 0; }
td:last-child, thead th:last-child { border-left: 1px solid var(--rule); }
.best { font-weight: 700; background: var(--mark); }
.pairs th, .pairs td { text-align: left; vertical-align: top; padding: 3px 12px 3px 0; font-size: 13px; }
.pairs th { color: var(--soft); font-weight: 400; }
.pairs td { white-space: normal; overflow-wrap: anywhere; width: 100%; border-left: 0; }
.columns { display: grid; grid-template-columns: repeat(auto-fit, minmax(300px, 1fr)); gap: 4px 32px; }
.columns h3 { margin-top: 8px; }
.grid-of-charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(300px, 1fr)); gap: 14px 18px; }
.grid-of-charts.wide { grid-template-columns: repeat(auto-fit, minmax(380px, 1fr)); }
.wide svg text { font-size: 8px; } .wide .line { stroke-width: 1.3; }
figure { margin: 0; }
figcaption { font-weight: 600; font-size: 14px; margin-bottom: 2px; }
.strip { overflow-x: auto; margin-bottom: 14px; }
.strip > div { display: flex; min-width: 640px; font-size: 12px; color: var(--soft); }
.strip span { flex: 1 1 0; text-align: center; overflow-wrap: anywhere; }
.strip img { display: block; width: 100%; min-width: 640px; }
details { border-top: 1px solid var(--rule); padding: 8px 0; }
details[open] summary { margin-bottom: 10px; }
summary { cursor: pointer; font-weight: 600; }
summary .hint { font-weight: 400; margin-left: 8px; }
.legend { display: flex; flex-wrap: wrap; gap: 4px 18px; font-size: 13px; margin: 4px 0 10px; }
.key { display: inline-flex; align-items: center; gap: 6px; }
.swatch { width: 22px; height: 10px; }
svg { display: block; width: 100%; height: auto; }
svg text { fill: var(--soft); font-size: 10.5px; }
.grid { stroke: var(--rule); stroke-width: 1; }
.axis { stroke: var(--soft); stroke-width: 1; }
.guide { stroke: var(--soft); stroke-width: 1; stroke-dasharray: 2 3; }
.line { fill: none; stroke-width: 1.8; stroke-linejoin: round; }
.line:hover { stroke-width: 3.2; }
.dashed { stroke-dasharray: 5 3; }
.s0 { stroke: var(--s0); } .s1 { stroke: var(--s1); } .s2 { stroke: var(--s2); } .s3 { stroke: var(--s3); }
.s4 { stroke: var(--s4); } .s5 { stroke: var(--s5); } .s6 { stroke: var(--s6); } .s7 { stroke: var(--s7); }
.dots { stroke: none; }
.dots.s0 { fill: var(--s0); } .dots.s1 { fill: var(--s1); } .dots.s2 { fill: var(--s2); } .dots.s3 { fill: var(--s3); }
.dots.s4 { fill: var(--s4); } .dots.s5 { fill: var(--s5); } .dots.s6 { fill: var(--s6); } .dots.s7 { fill: var(--s7); }
.area { fill-opacity: 0.38; stroke-width: 1.3; }
.inlier { fill: var(--inlier); stroke: var(--inlier); } .outlier { fill: var(--outlier); stroke: var(--outlier); }
.line.inlier, .line.outlier { stroke-width: 8; stroke-opacity: 0.6; }
.threshold { fill: none; stroke: var(--ink); stroke-width: 1.4; stroke-dasharray: 4 3; }
.beyond { fill: var(--outlier); font-weight: 600; }
.hit { stroke: transparent; stroke-width: 10; }
@media print { details > * { display: block; } section { break-inside: avoid; } }
"""
