"""The page of ``captum-advise app``, made with Gradio.

It fetches nothing from other machines, and sends nothing to them: no analytics, no fonts, no share
link. It reads only files that the user uploads.
"""

from __future__ import annotations

import html
from pathlib import Path
from typing import Any

from captum_advise import visualization, zoo
from captum_advise._utils.errors import USER_ERRORS, first_line
from captum_advise._utils.optional_dependencies import import_optional
from captum_advise.cli.app_uploads import MAX_BYTES, Guard
from captum_advise.cli.explain import explained
from captum_advise.layer_advise import UnitSelection
from captum_advise.zoo.layer_probe import feature_layers
from captum_advise.zoo.recognition import unwrapped

MAX_PIXELS = 40_000_000
# Pillow's other formats run other programs or are rare.
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "TIFF", "WEBP")
_EXAMPLES = ("chelsea.png", "coffee.png", "rocket.jpg", "astronaut.png")  # of scikit-image
# Densities of larger layers take minutes.
_MOST_POSITIONS = 32 * 32

_SELECTIONS: dict[str, UnitSelection] = {
    "the group with the highest AVX": "avx",
    "the group with the smallest average drop": "average_drop",
    **{f"relevance {relevance}": relevance for relevance in range(4)},
    "all units (Grad-CAM)": None,
}

# Gradio leaves a list of choices open where a tab leads away from it.
_STYLE = """
div:not(:focus-within) > div:has(> ul[role=listbox]) { display: none; }
textarea:focus-visible { outline: 2px solid currentColor !important; }
.source-selection button { color: inherit; }
#result .html-container { padding: 0; }
#result iframe { width: 100%; height: 40rem; border: 0; }
#result [role=alert] {
  margin: 0; padding: .8rem 1rem; border: 2px solid #a32a00; border-left-width: .6rem;
  border-radius: 5px; background: #fff4ef; color: #7a1f00; font-weight: 600;
}
"""
# The frame, which nobody may look into, tells its height. A list of choices that scrolls would take
# the focus at a tab, and stay open.
_SCRIPT = """<script>
addEventListener("message", (event) => {
  const frame = document.querySelector("#result iframe");
  const height = Number(event.data?.explanationHeight);
  if (frame && event.source === frame.contentWindow && height > 0)
    frame.style.height = `${Math.min(height, 20000)}px`;
});
addEventListener("keydown", (event) => {
  if (event.key === "Tab") for (const list of document.querySelectorAll("ul")) list.tabIndex = -1;
}, true);
</script>"""


def build(network: zoo.Network) -> Any:
    """The page, a ``gradio.Blocks``, for a network."""
    gradio, data = import_optional("gradio", "app"), import_optional("skimage.data", "demo")
    with gradio.Blocks(title="captum-advise", analytics_enabled=False, fill_width=True) as page:
        gradio.Markdown("# Which part of an image did a network base its prediction on?")
        with gradio.Row():
            with gradio.Column():
                image = gradio.Image(
                    type="filepath", sources=["upload", "clipboard"], label="Image", height=260
                )
                # Gradio opens files of every format and size. Here, only _open does.
                image.preprocess = lambda file: None if file is None else file.path
                examples = [Path(data.__file__).with_name(name) for name in _EXAMPLES]
                names = [path.stem for path in examples]
                gradio.Examples(list(map(str, examples)), image, example_labels=names)
            with gradio.Column():
                layer = gradio.Dropdown(
                    layer_choices(network),
                    value=network.layer_name,
                    label="Layer",
                    info=f"Of {network.name}.",
                )
                target = gradio.Textbox(
                    label="Class",
                    info="Its index, its name, or words of its name.",
                    placeholder="the predicted class",
                    max_length=200,
                )
            with gradio.Column():
                selection = gradio.Dropdown(list(_SELECTIONS), label="Units of LayerAdvise's map")
                button = gradio.Button("Explain", variant="primary")
        result = gradio.HTML(label="Explanation", elem_id="result", padding=False)

        def explain(*arguments: Any) -> str:
            try:
                return _frame(_explained(network, *arguments))
            except USER_ERRORS as error:
                return _message(first_line(error))

        button.click(explain, [image, layer, target, selection], result, api_visibility="private")
    # One computation at a time, and nobody passes the queue by.
    return page.queue(max_size=16, default_concurrency_limit=1, api_open=False)


def start(page: Any, host: str, port: int, uploads: Path) -> None:
    """Serve the page from :func:`build`, and return; ``uploads`` is where Gradio puts files."""
    gradio = import_optional("gradio", "app")
    middleware = import_optional("starlette.middleware", "app").Middleware
    hosts = None if host in ("0.0.0.0", "::") else {"localhost", "127.0.0.1", host}
    guard = middleware(Guard, hosts=hosts, folder=uploads)
    system = ["system-ui", "sans-serif"]
    theme = gradio.themes.Base(font=system, font_mono=["ui-monospace", "monospace"]).set(
        block_info_text_color="*neutral_600",
        block_info_text_color_dark="*neutral_300",
        input_placeholder_color="*neutral_600",
        input_placeholder_color_dark="*neutral_300",
        body_text_color_subdued="*neutral_600",
        button_primary_background_fill="*primary_600",
        button_primary_background_fill_hover="*primary_700",
    )
    try:
        page.launch(
            server_name=in_address(host),
            server_port=port,
            share=False,
            quiet=True,
            prevent_thread_lock=True,
            max_file_size=MAX_BYTES,
            footer_links=[],
            enable_monitoring=False,
            theme=theme,
            css=_STYLE,
            head=_SCRIPT,
            app_kwargs={"middleware": [guard]},
        )
    except OSError as error:
        raise OSError(
            f"The page cannot listen on {host}, port {port}: the port is in use, or the address is "
            "not one of this machine; give another one with --port or --host."
        ) from error


def in_address(host: str) -> str:
    """A host in the address of a page: IPv6 addresses have brackets."""
    return f"[{host}]" if ":" in host else host


def layer_choices(network: zoo.Network) -> list[tuple[str, str]]:
    """Texts and names of layers: the network's own, blocks, single layers; the last ones first."""
    model = unwrapped(network.model)

    def rank(name: str) -> int:
        if name == network.layer_name:
            return 0
        # A normalization of timm is not a block, although its activation is within.
        children = model.get_submodule(name).children()
        return 1 if any(True for child in children for _ in child.parameters()) else 2

    last_first = list(reversed(feature_layers(network).items()))
    last_first.sort(key=lambda layer: rank(layer[0]))
    return [
        (f"{name}: {units} units, {height} x {width}", name)
        for name, (units, height, width) in last_first
        if 4 <= height * width <= _MOST_POSITIONS
    ]


def _explained(
    network: zoo.Network, path: str | None, layer: str, target: str, selection: str
) -> str:
    if path is None:
        raise ValueError("There is no image: upload one, or choose an example.")
    explanation = explained(
        _open(Path(path)),
        network,
        target=target.strip() or None,
        layer=layer,
        unit_selection=_SELECTIONS[selection],
        keep_units=True,
    )
    return visualization.page(explanation)


def _open(path: Path) -> Any:
    """An uploaded image, after a look at its format and its number of pixels."""
    pil = import_optional("PIL.Image", "demo")
    most = f"at most {MAX_PIXELS // 10**6} million are read"
    try:
        with pil.open(path, formats=FORMATS) as file:
            width, height = file.size
    except pil.DecompressionBombError as error:
        raise ValueError(f"The image has too many pixels: {most}.") from error
    # What a damaged file raises differs from format to format.
    except Exception as error:
        known = ", ".join(FORMATS)
        raise ValueError(f"The file is not an image that can be read: use {known}.") from error
    if width * height > MAX_PIXELS:
        raise ValueError(f"The image has {width} x {height} pixels: {most}.")
    return zoo.open_image(path)


def _frame(page: str) -> str:
    """A page within another, without access to it."""
    frame = '<iframe title="Explanation" sandbox="allow-scripts" scrolling="no" srcdoc="'
    return f'{frame}{_escaped(page)}"></iframe>'


def _message(text: str) -> str:
    return f'<p role="alert">{_escaped(text)}</p>'


def _escaped(text: str) -> str:
    # Gradio fills in what looks like a template.
    return html.escape(text).replace("{", "&#123;").replace("$", "&#36;")
