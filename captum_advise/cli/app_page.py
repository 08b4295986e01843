"""The page of ``captum-advise app``, made with Gradio.

It fetches nothing from other machines, and sends nothing to them: no analytics, no fonts, no share
link. It reads only files that the user uploads.
"""

from __future__ import annotations

import html
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import captum_advise
from captum_advise import visualization, zoo
from captum_advise._utils.errors import USER_ERRORS, first_line
from captum_advise._utils.optional_dependencies import import_optional
from captum_advise.cli.app_uploads import MAX_BYTES, Guard
from captum_advise.cli.explain import check_relevance
from captum_advise.layer_advise import UnitSelection
from captum_advise.relevance import ActivationRange
from captum_advise.zoo.layer_probe import feature_layers
from captum_advise.zoo.recognition import unwrapped

MAX_PIXELS = 40_000_000
# Pillow's other formats run other programs or are rare.
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "TIFF", "WEBP")
_EXAMPLES = ("chelsea", "coffee", "rocket", "astronaut")
# Densities of larger layers take minutes.
_MOST_POSITIONS = 32 * 32
_PATIENCE = 120.0  # seconds that a request waits for others

_SELECTIONS: dict[str, UnitSelection] = {
    "the group with the highest AVX": "avx",
    "the group with the smallest average drop": "average_drop",
    "relevance 0": 0,
    "relevance 1": 1,
    "relevance 2": 2,
    "relevance 3": 3,
    "all units (Grad-CAM)": None,
}
_RANGES: dict[str, ActivationRange] = {
    "only those in [0, 1]": (0.0, 1.0),
    "each unit's own range, mapped to [0, 1]": "minmax",
}

# Gradio leaves a list of choices open where a tab leads away from it.
_STYLE = """
div:not(:focus-within) > div:has(> ul[role=listbox]) { display: none; }
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


def build(network: zoo.Network, folder: Path) -> Any:
    """The page.

    Args:
        network: The network that is chosen at first.
        folder: For the example images.

    Returns:
        A ``gradio.Blocks``.
    """
    gradio = import_optional("gradio", "app")
    networks = _Networks(network)
    names = list(dict.fromkeys((network.name, *zoo.list_networks())))
    layers = networks.layer_choices(network.name)
    with gradio.Blocks(title="captum-advise", analytics_enabled=False, fill_width=True) as page:
        gradio.Markdown("# Which part of an image did a network base its prediction on?")
        with gradio.Row():
            with gradio.Column():
                image = gradio.Image(
                    type="filepath", sources=["upload", "clipboard"], label="Image", height=260
                )
                # Gradio opens files of every format and size. Here, only _open does.
                image.preprocess = lambda file: None if file is None else file.path
                with gradio.Row():
                    examples = {
                        path: gradio.Button(path.stem, icon=path, size="sm", min_width=120)
                        for path in _example_files(folder)
                    }
            with gradio.Column():
                model = gradio.Dropdown(names, value=network.name, label="Network")
                layer = gradio.Dropdown(layers, value=network.layer_name, label="Layer")
                target = gradio.Textbox(
                    label="Class",
                    info="Its index, its name, or words of its name.",
                    placeholder="the predicted class",
                    max_length=200,
                )
            with gradio.Column():
                selection = gradio.Dropdown(list(_SELECTIONS), label="Units of the map")
                values = gradio.Dropdown(list(_RANGES), label="Activations that count")
                button = gradio.Button("Explain", variant="primary")
        result = gradio.HTML(label="Explanation", elem_id="result", padding=False)

        def update_layers(name: str) -> tuple[Any, str]:
            try:
                with alone():
                    choices = networks.layer_choices(name)
                    default = networks.load(name).layer_name
            except USER_ERRORS as error:
                return gradio.Dropdown(choices=[], value=None), _message(_in_words(error, name))
            return gradio.Dropdown(choices=choices, value=default), ""

        def explain(*arguments: Any) -> str:
            try:
                with alone():
                    return _frame(_explained(networks, *arguments))
            except USER_ERRORS as error:
                return _message(_in_words(error, arguments[1]))

        private = {"api_visibility": "private"}
        model.change(update_layers, model, [layer, result], **private)
        inputs = [image, model, layer, target, selection, values]
        button.click(explain, inputs, result, **private)
        for path, example in examples.items():
            example.click(partial(str, path), None, image, **private)
    # Nobody passes the queue by.
    return page.queue(max_size=16, default_concurrency_limit=1, api_open=False)


_lock = threading.Lock()


@contextmanager
def alone() -> Iterator[None]:
    """One computation at a time, whoever asks: they share the network, the processor, the memory.

    Raises:
        ValueError: Others take too long.
    """
    if not _lock.acquire(timeout=_PATIENCE):
        raise ValueError("The page is busy with other images: try again in a minute.")
    try:
        yield
    finally:
        _lock.release()


def start(page: Any, host: str, port: int, uploads: Path) -> None:
    """Serve the page, and return.

    Args:
        page: From :func:`build`.
        host: The address to listen on.
        port: The port.
        uploads: Where Gradio puts what is uploaded.

    Raises:
        OSError: The port is in use, or the address is not one of this machine.
    """
    gradio = import_optional("gradio", "app")
    middleware = import_optional("starlette.middleware", "app").Middleware
    hosts = None if host in ("0.0.0.0", "::") else {"localhost", "127.0.0.1", host}
    system = ["system-ui", "sans-serif"]
    theme = gradio.themes.Base(font=system, font_mono=["ui-monospace", "monospace"]).set(
        block_info_text_color="*neutral_600",
        block_info_text_color_dark="*neutral_300",
        input_placeholder_color="*neutral_600",
        input_placeholder_color_dark="*neutral_300",
    )
    try:
        page.launch(
            server_name=in_address(host),
            server_port=port,
            share=False,
            inbrowser=False,
            quiet=True,
            prevent_thread_lock=True,
            allowed_paths=[],
            max_file_size=MAX_BYTES,
            footer_links=[],
            ssr_mode=False,
            pwa=False,
            mcp_server=False,
            enable_monitoring=False,
            theme=theme,
            css=_STYLE,
            head=_SCRIPT,
            app_kwargs={"middleware": [middleware(Guard, hosts=hosts, folder=uploads)]},
        )
    except OSError as error:
        raise OSError(
            f"The page cannot listen on {host}, port {port}: the port is in use, or the address is "
            "not one of this machine; give another one with --port or --host."
        ) from error


def in_address(host: str) -> str:
    """A host in the address of a page: IPv6 addresses have brackets."""
    return f"[{host}]" if ":" in host else host


class _Networks:
    """Networks by name, of which the last few are kept."""

    def __init__(self, first: zoo.Network) -> None:
        self._first = first
        self._device = next(first.model.parameters()).device
        self.load = lru_cache(maxsize=2)(self._load)
        self.layers = lru_cache(maxsize=8)(self._layers)

    def _load(self, name: str) -> zoo.Network:
        return self._first if name == self._first.name else zoo.load(name, device=self._device)

    def _layers(self, name: str) -> dict[str, tuple[int, int, int]]:
        return {
            layer: shape
            for layer, shape in feature_layers(self.load(name)).items()
            if 4 <= shape[1] * shape[2] <= _MOST_POSITIONS
        }

    def layer_choices(self, name: str) -> list[tuple[str, str]]:
        """Texts and names of the layers: blocks, then single layers, of each the last one first."""
        model = unwrapped(self.load(name).model)
        last_first = list(reversed(self.layers(name).items()))
        last_first.sort(key=lambda layer: not any(model.get_submodule(layer[0]).children()))
        return [
            (f"{layer}: {units} units, {height} x {width}", layer)
            for layer, (units, height, width) in last_first
        ]

    def with_layer(self, name: str, layer: str) -> zoo.Network:
        """A network with a chosen layer.

        Raises:
            ValueError: There is no such layer.
        """
        network = self.load(name)
        if layer == network.layer_name:
            return network
        if layer not in self.layers(name):
            raise ValueError(f"{name} has no layer {layer!r} to explain: choose one of the list.")
        return zoo.describe(network, layer=layer)


def _explained(
    networks: _Networks,
    path: str | None,
    model: str,
    layer: str,
    target: str,
    selection: str,
    values: str,
) -> str:
    if path is None:
        raise ValueError("There is no image: upload one, or choose an example.")
    image = _open(Path(path))
    network = networks.with_layer(model, layer)
    chosen = _SELECTIONS[selection]
    explanation = captum_advise.explain(
        image,
        network,
        target.strip() or None,
        unit_selection=chosen,
        activation_range=_RANGES[values],
        keep_units=True,
    )
    check_relevance(explanation, chosen)
    return visualization.page(explanation)


def _open(path: Path) -> Any:
    """An uploaded image, after a look at its format and its number of pixels.

    Raises:
        ValueError: It is not an image in a known format, or too large.
    """
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


def _example_files(folder: Path) -> list[Path]:
    data, pil = import_optional("skimage.data", "demo"), import_optional("PIL.Image", "demo")
    paths = []
    for name in _EXAMPLES:
        path = folder / f"{name}.png"
        pil.fromarray(getattr(data, name)()).save(path)
        paths.append(path)
    return paths


def _frame(page: str) -> str:
    """A page within another, without access to it."""
    # Gradio fills in what looks like a template.
    text = html.escape(page).replace("{", "&#123;").replace("$", "&#36;")
    frame = '<iframe title="Explanation" sandbox="allow-scripts" scrolling="no" srcdoc="'
    return f'{frame}{text}"></iframe>'


def _in_words(error: BaseException, network: str) -> str:
    command = f"by captum-advise app --model {network} --weights PATH"
    return first_line(error).replace("with --weights PATH", command)


def _message(text: str) -> str:
    safe = html.escape(text).replace("{", "&#123;").replace("$", "&#36;")
    return f'<p role="alert">{safe}</p>'
