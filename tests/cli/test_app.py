"""``captum-advise app``."""

from __future__ import annotations

import asyncio
import http.client
import json
import math
import os
import signal
import socket
import subprocess
import sys
import tempfile
from contextlib import closing
from functools import partial
from html.parser import HTMLParser
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
from browser import chromium, complaints
from messages import one_sentence
from pages import Elements, figures
from PIL import Image

from captum_advise import cli, zoo
from captum_advise.cli import app_page, app_uploads

HOSTILE = "${alert(1)} {{value}} \"'><script>alert(1)</script>"


def test_without_gradio(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "gradio", None)
    monkeypatch.setattr(os, "environ", dict(os.environ))
    assert cli.main(["app"]) == 2
    (complaint,) = capsys.readouterr().err.splitlines()
    assert "captum-advise[app]" in complaint


class Attributes(HTMLParser):
    """The attributes of the only element, and its text."""

    def __init__(self, text):
        super().__init__()
        self.found, self.text = [], ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))

    def handle_data(self, text):
        self.text += text


def test_pages_and_messages_hold_no_template():
    for made in (app_page._frame(HOSTILE), app_page._message(HOSTILE)):
        assert "${" not in made
        assert "{{" not in made
        assert "<script" not in made
    ((_, frame),) = Attributes(app_page._frame(HOSTILE)).found
    assert frame["srcdoc"] == HOSTILE
    assert frame["sandbox"] == "allow-scripts"
    assert frame["scrolling"] == "no"
    assert Attributes(app_page._message(HOSTILE)).text == HOSTILE


def test_images_are_read_after_a_look_at_them(cat, tmp_path):
    assert app_page._open(cat).size == zoo.example_image().size


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("large.png", (8000, 8000), "8000 x 8000 pixels"),
        ("bomb.png", (14000, 14000), "too many pixels"),
        ("text.png", b"no image", "not an image"),
        ("page.eps", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not an image"),
        ("half.png", None, "truncated or damaged"),
    ],
)
def test_images_that_are_refused(name, content, message, tmp_path):
    path = tmp_path / name
    if isinstance(content, tuple):
        Image.new("1", content).save(path)
    elif content is None:
        zoo.example_image().save(path)
        path.write_bytes(path.read_bytes()[:5000])
    else:
        path.write_bytes(content)
    with pytest.raises(ValueError) as error:
        app_page._open(path)
    assert message in one_sentence(error)


@pytest.fixture(scope="module")
def network():
    return zoo.load("timm/test_resnet", weights="random")


def test_layers_to_choose_from(network):
    choices = app_page.layer_choices(network)
    names = [name for _, name in choices]
    assert names[0] == network.layer_name == "layer4"
    # Blocks come before single layers, of each the last one first.
    model = network.model
    is_block = [any(model.get_submodule(name).children()) for name in names]
    assert is_block == sorted(is_block, reverse=True)
    assert {True, False} == set(is_block)
    order = [name for name, _ in model.named_modules()]
    blocks = [order.index(name) for name in names if any(model.get_submodule(name).children())]
    assert order[blocks[0]] == "layer4"
    assert names.index("layer3") > names.index("layer4")
    assert {"layer2", "layer3"} <= set(names)
    assert "layer1" not in names  # 40 x 40: densities take long
    assert "layer4: 96 units, 5 x 5" in [text for text, _ in choices]


def test_an_explanation(network, cat):
    selection = list(app_page._SELECTIONS)[1]
    page = app_page._explained(network, str(cat), "layer4", "egyptian", selection)
    assert "<h2>Egyptian cat</h2>" in page
    names = [figure.label for figure in figures(page, "Map of ")[:3]]
    assert names == ["Map of GatedGradCam", "Map of LayerAdvise", "Map of Grad-CAM"]
    assert figures(page, "Map of ")[0].caption == "GatedGradCam: 160 x 160 positions"
    assert len(figures(page, "Activation of unit ")) == 10
    page = app_page._explained(network, str(cat), "layer3", "", selection)
    assert figures(page, "Map of Grad-CAM")[0].caption.startswith("Grad-CAM: all 192 units")


def test_a_normalization_with_its_activation_is_no_block():
    network = zoo.load("timm/test_efficientnet", weights="random")
    names = [name for _, name in app_page.layer_choices(network)]
    assert names[0] == network.layer_name
    assert names[1] == "blocks"
    first = next(i for i, name in enumerate(names) if i and "bn" in name.split(".")[-1])
    assert "blocks.2" in names[:first]
    assert all("bn" in name or "conv" in name for name in names[first:])


def test_a_relevance_that_no_unit_has(network, cat, monkeypatch):
    monkeypatch.setitem(app_page._SELECTIONS, "relevance 99", 99)
    with pytest.raises(ValueError) as error:
        app_page._explained(network, str(cat), "layer4", "", "relevance 99")
    assert "have no unit with relevance 99" in one_sentence(error)


# --- what is uploaded


def test_the_oldest_uploads_make_room(tmp_path, monkeypatch):
    for number in range(5):
        folder = tmp_path / f"{number}"
        folder.mkdir()
        (folder / "image.png").write_bytes(bytes(100))
        os.utime(folder / "image.png", (number, number))
    monkeypatch.setattr(app_uploads, "MAX_BYTES", 50)
    monkeypatch.setattr(app_uploads, "QUOTA", 300)
    app_uploads._make_room(set(tmp_path.rglob("*")), 1)
    left = sorted(path.parent.name for path in tmp_path.rglob("*.png"))
    assert left == ["3", "4"]


def guarded(guard, path="/gradio_api/upload", method="POST", **headers):
    """The status that a guard answers with, 200 where it lets a request pass."""
    statuses = []

    async def send(message):
        statuses.append(message.get("status"))

    named = {"host": "127.0.0.1", **headers}
    pairs = [
        (name.replace("_", "-").encode(), str(value).encode()) for name, value in named.items()
    ]
    scope = {"type": "http", "path": path, "method": method, "headers": pairs}
    asyncio.run(guard(scope, None, send))
    return statuses[0] if statuses else 200


@pytest.mark.parametrize(
    ("path", "method", "headers", "expected"),
    [
        ("/gradio_api/upload", "POST", {"content_length": 20 * 2**20}, 200),
        ("/gradio_api/upload", "POST", {"content_length": 21 * 2**20}, 413),
        ("/gradio_api/upload", "POST", {}, 413),
        # A server reads chunks to their end, whatever length is said.
        ("/gradio_api/upload", "POST", {"content_length": 9, "transfer_encoding": "chunked"}, 413),
        # Files are taken here as well, and kept where the sender leaves.
        ("/gradio_api/process_recording", "POST", {"content_length": 2**20}, 413),
        ("/gradio_api/queue/join", "POST", {"content_length": 2**20}, 413),
        ("/gradio_api/queue/join", "POST", {"content_length": 500}, 200),
        ("/config", "GET", {}, 200),
    ],
)
def test_requests_are_small(path, method, headers, expected, tmp_path):
    async def app(*_):
        pass

    guard = app_uploads.Guard(app, {"127.0.0.1"}, tmp_path)
    assert guarded(guard, path, method, **headers) == expected


def test_uploads_at_once_are_within_the_quota(tmp_path, monkeypatch):
    monkeypatch.setattr(app_uploads, "MAX_BYTES", 50)
    monkeypatch.setattr(app_uploads, "QUOTA", 300)
    monkeypatch.setattr(app_uploads, "AT_ONCE", 3)
    most, refused = [], []

    async def app(*_):
        if len(most) == 3:
            return
        most.append(sum(path.stat().st_size for path in tmp_path.iterdir()) + 50 * (len(most) + 1))
        scope = {"type": "http", "path": "/upload", "method": "POST", "headers": headers}
        await guard(scope, None, send)

    async def send(message):
        refused.append(message.get("status"))

    headers = [(b"host", b"127.0.0.1"), (b"content-length", b"50")]
    guard = app_uploads.Guard(app, {"127.0.0.1"}, tmp_path)
    for number in range(6):
        (tmp_path / f"{number}.png").write_bytes(bytes(50))
        os.utime(tmp_path / f"{number}.png", (number, number))
    assert guarded(guard, content_length=50) == 200
    assert most == [300, 300, 300]
    assert refused[0] == 503
    assert guarded(guard, content_length=50) == 200


def test_who_leaves_is_not_complained_of(tmp_path):
    gone = pytest.importorskip("starlette.requests").ClientDisconnect

    async def app(*_):
        raise gone

    guard = app_uploads.Guard(app, {"127.0.0.1"}, tmp_path)
    assert guarded(guard, content_length=50) == 200


def test_folders_of_processes_that_were_killed_are_deleted(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    user = tmp_path / "captum-advise-of-the-user"
    user.mkdir()
    abandoned = tmp_path / "captum-advise-abandoned"
    (abandoned / "uploads").mkdir(parents=True)
    (abandoned / "in-use").touch()
    with app_uploads.upload_folder() as first:
        assert not abandoned.exists()
        (first / "image.png").touch()
        with app_uploads.upload_folder() as second:
            assert first.parent != second.parent
            assert (first / "image.png").exists()  # its process is alive
    assert list(tmp_path.iterdir()) == [user]


# --- the running page


COMMAND = [sys.executable, "-m", "captum_advise", "app"]


class Server:
    """``captum-advise app`` in a process of its own."""

    def __init__(self, folder, host="127.0.0.1"):
        with closing(socket.socket()) as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"http://{app_page.in_address(host)}:{self.port}"
        self.folder = folder
        (folder / "tmp").mkdir(exist_ok=True)
        (folder / "cwd").mkdir(exist_ok=True)
        self.process = subprocess.Popen(
            [*COMMAND, "--host", host, "--port", str(self.port)],
            cwd=folder / "cwd",
            env=os.environ | {"TMPDIR": str(folder / "tmp")},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            # A shell's job in the background ignores the signal, and so would its children.
            preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
        )

    def wait(self):
        """The page, once the command says that it is there."""
        self.said = self.process.stdout.readline()
        assert self.said, self.process.stderr.read()
        return urlopen(self.url, timeout=60)

    def post(self, path, content, kind):
        request = Request(f"{self.url}/gradio_api/{path}", content, {"Content-Type": kind})
        with urlopen(request, timeout=60) as answer:
            return json.loads(answer.read())

    def upload(self, content):
        body = (
            b'--b\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n'
            b"Content-Type: image/png\r\n\r\n" + content + b"\r\n--b--\r\n"
        )
        return self.post("upload", body, "multipart/form-data; boundary=b")[0]

    def folders(self):
        """What the command has among the temporary files."""
        return [path for path in (self.folder / "tmp").iterdir() if "captum" in path.name]

    def end(self, number):
        """Output, error output and status after a signal."""
        self.process.send_signal(number)
        out, err = self.process.communicate(timeout=60)
        return self.said + out, err, self.process.returncode

    def request(self, path):
        """What asks for an explanation of a file on the server."""
        with urlopen(f"{self.url}/config") as answer:
            functions = json.loads(answer.read())["dependencies"]
        (number,) = [f["id"] for f in functions if f["api_name"] == "explain"]
        image = {"path": path, "meta": {"_type": "gradio.FileData"}}
        arguments = [image, "bn2", "", next(iter(app_page._SELECTIONS))]
        content = {"data": arguments, "fn_index": number, "session_hash": "test"}
        return json.dumps(content).encode()

    def explain(self, path):
        """What the button's function returns for a file on the server, or None if it fails."""
        self.post("queue/join", self.request(path), "application/json")
        with urlopen(f"{self.url}/gradio_api/queue/data?session_hash=test", timeout=120) as events:
            for line in events:
                event = json.loads(line.removeprefix(b"data:")) if line.strip() else {}
                if event.get("msg") == "process_completed":
                    return event["output"]["data"][0] if event["success"] else None
        raise AssertionError("the queue ended early")


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    server = Server(tmp_path_factory.mktemp("server"))
    try:
        server.wait()
        yield server
    finally:
        server.process.kill()
        server.process.communicate()


def status(url, **headers) -> int:
    try:
        with urlopen(Request(url, headers=headers), timeout=20) as answer:
            return answer.status
    except HTTPError as error:
        with error:
            return error.code


@pytest.mark.slow
def test_answers_on_loopback_only(server):
    assert status(server.url) == 200
    with closing(socket.socket()) as other:
        other.settimeout(5)
        # All of 127.0.0.0/8 is this machine on Linux; a page bound to every address would answer.
        assert other.connect_ex(("127.0.0.2", server.port)) != 0


@pytest.mark.slow
def test_another_host_name_is_refused(server):
    for host in ("evil.example", "[evil"):
        assert status(server.url, Host=host) == 400


@pytest.mark.slow
def test_another_site_is_refused(server):
    for origin in ("http://evil.example", "null", "http://127.0.0.1:1"):
        assert status(server.url, Origin=origin) == 403
    assert status(server.url, Origin=server.url) == 200


@pytest.mark.slow
def test_an_upload_without_a_length_is_refused(server):
    with closing(http.client.HTTPConnection("127.0.0.1", server.port)) as connection:
        parts = [b"a" * 1000] * 3
        connection.request("POST", "/gradio_api/upload", iter(parts), encode_chunked=True)
        assert connection.getresponse().status == 413


@pytest.mark.slow
def test_the_queue_cannot_be_passed_by(server, cat):
    content = server.request(server.upload(cat.read_bytes()))
    for path in ("run/explain", "run/predict", "api/explain", "api/predict"):
        with pytest.raises(HTTPError) as error:
            server.post(path, content, "application/json")
        with error.value:
            assert error.value.code in (404, 405, 422)


@pytest.mark.slow
def test_files_of_the_machine_are_not_served(server):
    (server.folder / "cwd" / "secret.txt").write_text("secret")
    for path in ("/etc/passwd", server.folder / "cwd" / "secret.txt", "secret.txt"):
        assert status(f"{server.url}/gradio_api/file={path}") in (403, 404)


@pytest.mark.slow
def test_files_that_were_not_uploaded_are_not_read(server):
    path = server.folder / "cwd" / "own.png"
    zoo.example_image().save(path)
    assert server.explain(str(path)) is None


@pytest.mark.slow
def test_an_upload_over_the_limit_is_refused(server):
    with pytest.raises(HTTPError) as error:
        server.upload(bytes(app_uploads.MAX_BYTES + 1))
    with error.value:
        assert error.value.code == 413


@pytest.mark.slow
def test_an_upload_is_explained(server, cat):
    answer = server.explain(server.upload(cat.read_bytes()))
    ((tag, frame),) = Attributes(answer).found
    assert tag == "iframe"
    assert "cat" in Elements(frame["srcdoc"]).texts["h2"]
    shown = figures(frame["srcdoc"], "Map of Grad-CAM")[0]
    assert shown.caption.startswith("Grad-CAM: all 1280 units")


@pytest.mark.slow
def test_an_upload_that_is_not_an_image(server):
    answer = Attributes(server.explain(server.upload(b"text")))
    assert answer.found == [("p", {"role": "alert"})]
    assert "not an image" in answer.text


@pytest.mark.slow
def test_a_port_in_use(server, capsys):
    finished = subprocess.run(
        [*COMMAND, "--port", str(server.port)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 2
    (complaint,) = finished.stderr.splitlines()
    assert "the port is in use" in complaint


def lists(driver):
    return driver.find_elements("css selector", "ul[role=listbox]")


def height_of_page(driver, frame):
    driver.switch_to.frame(frame)
    page = "return document.documentElement.getBoundingClientRect().height"
    height = math.ceil(driver.execute_script(page))
    driver.switch_to.default_content()
    return height


@pytest.mark.slow
def test_in_a_browser(server):
    from selenium.webdriver.common.keys import Keys
    from selenium.webdriver.support.ui import WebDriverWait

    with chromium() as driver:
        wait = WebDriverWait(driver, 300)  # an explanation, on a busy machine
        driver.get(server.url)

        def button(text):
            found = driver.find_elements("css selector", "button")
            return next((element for element in found if element.text == text), None)

        wait.until(lambda _: button("chelsea")).click()
        loaded = "return [...document.querySelectorAll(\"img[src*='chelsea.png']\")]"
        wait.until(lambda _: driver.execute_script(f"{loaded}.some((image) => image.naturalWidth)"))
        # A list closes where the focus leaves it.
        layer = driver.find_element("css selector", "[aria-label='Layer']")
        # Again where the page was not yet ready for it.
        wait.until(lambda _: any(x.is_displayed() for x in lists(driver)) or layer.click())
        driver.switch_to.active_element.send_keys(Keys.TAB)
        wait.until(lambda _: not [x for x in lists(driver) if x.is_displayed()])
        field = driver.switch_to.active_element
        assert field.accessible_name.startswith("Class")
        assert field.value_of_css_property("outline-style") == "solid"  # the focus is seen
        button("Explain").click()
        frame = wait.until(lambda _: driver.find_element("css selector", "#result iframe"))
        assert driver.find_element("css selector", "[aria-label='Layer']").get_attribute("value")
        outside = "return performance.getEntriesByType('resource').map((entry) => entry.name)"
        hosts = {name.split("/")[2] for name in driver.execute_script(outside) if "//" in name}
        assert hosts == {f"127.0.0.1:{server.port}"}
        # The frame is as high as its page, also after it is narrower.
        for width in (1280, 500):
            driver.set_window_size(width, 1000)
            # Chromium pauses a frame that is out of sight.
            driver.execute_script("arguments[0].scrollIntoView()", frame)
            wait.until(lambda _: frame.size["height"] == height_of_page(driver, frame) > 1000)
        driver.switch_to.frame(frame)
        wait.until(lambda _: "cat" in driver.find_element("css selector", "h2").text)
        assert driver.find_element("id", "opacity").is_displayed()
        # A request to another machine would be refused, and so complained of.
        assert complaints(driver) == []


@pytest.mark.slow
@pytest.mark.parametrize(("ends", "expected"), [("SIGINT", 130), ("SIGTERM", 143), ("SIGHUP", 129)])
def test_leaves_nothing(ends, expected, tmp_path, cat):
    server = Server(tmp_path)
    server.wait()
    assert os.path.exists(server.upload(cat.read_bytes()))
    out, err, code = server.end(getattr(signal, ends))
    assert code == expected
    assert out == f"{server.url} (Ctrl+C stops it)\n"
    assert err == ""
    assert list((tmp_path / "cwd").iterdir()) == []
    assert server.folders() == []


@pytest.mark.slow
def test_leaves_nothing_after_it_was_killed_and_started_again(tmp_path, cat):
    killed = Server(tmp_path)
    killed.wait()
    killed.upload(cat.read_bytes())
    killed.end(signal.SIGKILL)
    (left,) = killed.folders()
    again = Server(tmp_path)
    try:
        again.wait()
        assert not left.exists()
        assert len(again.folders()) == 1
    finally:
        again.end(signal.SIGTERM)


@pytest.mark.slow
def test_an_address_of_ipv6(tmp_path):
    try:
        with closing(socket.socket(socket.AF_INET6)) as probe:
            probe.bind(("::1", 0))
    except OSError:
        pytest.skip("no IPv6")
    server = Server(tmp_path, "::1")
    try:
        assert server.wait().status == 200
        assert status(server.url, Host="evil.example") == 400
    finally:
        out, err, _ = server.end(signal.SIGTERM)
    assert out == f"http://[::1]:{server.port} (Ctrl+C stops it)\n"
    assert err == ""
