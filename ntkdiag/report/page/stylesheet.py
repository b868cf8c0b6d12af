"""The look of the page: readable in light, dark, on a telephone and on paper, without any outside resource."""

from __future__ import annotations

from ntkdiag.report.drawing.theme import DARK, LIGHT, Theme


def _variables(theme: Theme) -> str:
    colours = theme.colours
    return (
        f"--ink:{theme.ink};--muted:{theme.muted};--line:{theme.grid};--card:{theme.surface};"
        f"--accent:{colours['trained']};--supported:{colours['trained']};--contradicted:{colours['erd']};"
        f"--inconclusive:{theme.muted};"
    )


STYLESHEET = f"""
:root{{color-scheme:light dark;{_variables(LIGHT)}--page:#f5f6f8;--on-badge:#ffffff}}
@media screen and (prefers-color-scheme:dark){{:root{{{_variables(DARK)}--page:#0f1215;--on-badge:#0f1215}}}}
*{{box-sizing:border-box}}
html{{-webkit-text-size-adjust:100%}}
body{{margin:0;background:var(--page);color:var(--ink);
font:16px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif}}
main{{max-width:74rem;margin:0 auto;padding:2rem 1.25rem 4rem}}
h1{{font-size:1.9rem;line-height:1.2;margin:0 0 .4rem;overflow-wrap:anywhere}}
h2{{font-size:1.4rem;margin:3rem 0 .6rem;padding-top:1rem;border-top:1px solid var(--line)}}
h3{{font-size:1.1rem;margin:2.2rem 0 .8rem}}
h4{{font-size:1rem;margin:0}}
p,li,dd{{max-width:46rem;overflow-wrap:anywhere}}
.lead{{font-size:1.1rem;color:var(--muted);margin:.2rem 0 0}}
.answer{{font-size:1.1rem;font-weight:600;margin:.2rem 0 .6rem}}
a{{color:var(--accent)}}
dl{{display:grid;grid-template-columns:max-content 1fr;gap:.3rem 1.2rem;margin:.6rem 0}}
dt{{color:var(--muted)}}
dd{{margin:0;overflow-wrap:anywhere}}
.verdicts{{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,20rem),1fr));gap:1rem;margin:1rem 0}}
.verdict,figure{{background:var(--card);border:1px solid var(--line);border-radius:10px}}
.verdict{{padding:1rem 1.1rem;border-top:4px solid var(--tone)}}
.verdict p{{margin:.5rem 0 0}}
.supported{{--tone:var(--supported)}}.contradicted{{--tone:var(--contradicted)}}.inconclusive{{--tone:var(--inconclusive)}}
.badge{{display:inline-block;background:var(--tone);color:var(--on-badge);border-radius:1rem;
padding:.1rem .7rem;font-weight:600;font-size:.85rem}}
.claim{{color:var(--muted);font-size:.85rem;margin-left:.5rem}}
.statement{{font-weight:600}}
.numbers,.note{{font-size:.9rem;color:var(--muted)}}
.sentences li{{margin:.35rem 0}}
.figures{{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,30rem),1fr));gap:1rem;
align-items:start;grid-auto-flow:dense}}
.figures>figure:only-child{{grid-column:1/-1;max-width:44rem}}
figure{{margin:0;padding:1rem 1.1rem 1.1rem;min-width:0;break-inside:avoid}}
figure.wide{{grid-column:1/-1}}
figcaption{{margin:0 0 .6rem}}
figcaption p{{margin:.15rem 0 0;font-size:.92rem;color:var(--muted)}}
.panels{{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,var(--panel,30rem)),1fr));gap:.6rem}}
.small{{--panel:15rem}}
img{{display:block;width:100%;height:auto}}
.scroll{{overflow-x:auto;background:var(--card);border:1px solid var(--line);border-radius:10px;
padding:.9rem 1rem;margin:1rem 0}}
table{{border-collapse:collapse;font-size:.88rem;font-variant-numeric:tabular-nums;width:100%}}
caption{{text-align:left;color:var(--muted);padding-bottom:.6rem;position:sticky;left:0;max-width:min(44rem,100vw - 5rem)}}
th,td{{padding:.32rem .6rem;border-bottom:1px solid var(--line);text-align:right;white-space:nowrap;vertical-align:top}}
th{{font-weight:600;white-space:normal;vertical-align:bottom}}
.words{{text-align:left;white-space:normal;overflow-wrap:anywhere;min-width:8rem}}
.words:first-child{{white-space:nowrap;overflow-wrap:normal}}
tbody tr:last-child td{{border-bottom:0}}
@media (max-width:40rem){{main{{padding:1.2rem .8rem 3rem}}h1{{font-size:1.5rem}}
dl{{grid-template-columns:1fr;gap:0}}dd{{margin-bottom:.5rem}}figure{{padding:.8rem .6rem}}}}
@media print{{body{{background:#fff;font-size:10.5pt}}main{{max-width:none;padding:0}}h2,h3{{break-after:avoid}}
.verdict,figure,.scroll{{break-inside:avoid;border-color:#bbb}}.scroll{{overflow:visible}}
table{{font-size:6.5pt}}th,td{{padding:.15rem .25rem}}.wide .panels{{grid-template-columns:1fr 1fr}}
.wide .small{{grid-template-columns:1fr 1fr 1fr}}.verdicts{{grid-template-columns:1fr 1fr 1fr}}
.figures{{grid-template-columns:1fr 1fr}}h2{{margin-top:1.5rem}}
.badge{{print-color-adjust:exact;-webkit-print-color-adjust:exact}}}}
"""
