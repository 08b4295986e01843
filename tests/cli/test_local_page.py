"""``captum-advise app``."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import closing
from html.parser import HTMLParser
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

import pytest
from browser import chromium, complaints
from messages import one_sentence
from pages import data_of
from PIL import Image

from captum_advise import _app, cli, zoo
from captum_advise.cli.local_page import _is_loopback

HOSTILE = "${alert(1)} {{value}} \"'><script>alert(1)</script>"


@pytest.mark.parametrize(
    ("host", "expected"),
    [("127.0.0.1", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("me", False)],
)
def test_is_loopback(host, expected):
    assert _is_loopback(host) == expected


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
    for made in (_app._frame(HOSTILE), _app._message(HOSTILE)):
        assert "${" not in made
        assert "{{" not in made
        assert "<script" not in made
    ((_, frame),) = Attributes(_app._frame(HOSTILE)).found
    assert frame["srcdoc"] == HOSTILE
    assert frame["sandbox"] == "allow-scripts"
    assert Attributes(_app._message(HOSTILE)).text == HOSTILE


def test_images_are_read_after_a_look_at_them(cat, tmp_path):
    assert _app._open(cat).size == zoo.example_image().size


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
        _app._open(path)
    assert message in one_sentence(error)


@pytest.fixture(scope="module")
def networks():
    return _app._Networks(zoo.load("timm/test_resnet", weights="random"))


def test_layers_to_choose_from(networks):
    choices = networks.layer_choices("timm/test_resnet")
    names = [name for _, name in choices]
    assert names[0] == networks._first.layer_name == "layer4"
    assert {"layer2", "layer3"} <= set(names)
    assert "layer1" not in names  # 40 x 40: densities take long
    assert "layer4: 96 units, 5 x 5" in [text for text, _ in choices]
    chosen = networks.with_layer("timm/test_resnet", "layer3")
    assert chosen.layer is chosen.model.layer3
    # The layers of GatedGradCam end with the chosen one.
    assert chosen.layers[-1] is chosen.model.layer3
    assert chosen.layer_names[-1] == "layer3"
    assert set(chosen.layers) != set(networks._first.layers)
    with pytest.raises(ValueError) as error:
        networks.with_layer("timm/test_resnet", "fc")
    assert "no layer 'fc'" in one_sentence(error)


def test_an_explanation(networks, cat):
    selection, values = list(_app._SELECTIONS)[1], list(_app._RANGES)[1]
    page = _app._explained(
        networks, str(cat), "timm/test_resnet", "layer4", "egyptian", selection, values
    )
    (example,) = data_of(page)["examples"]
    assert example["class"] == "Egyptian cat"
    assert example["units"]["densities"]["activation_range"] == "minmax"
    names = [comparison["name"] for comparison in example["comparisons"]]
    assert names == ["Grad-CAM", "GatedGradCam"]
    assert example["comparisons"][1]["values"]["shape"] == [160, 160]


# --- the running page


class Server:
    """``captum-advise app`` in a process of its own."""

    def __init__(self, folder):
        with closing(socket.socket()) as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.folder = folder
        (folder / "tmp").mkdir()
        (folder / "cwd").mkdir()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "captum_advise", "app", "--port", str(self.port)],
            cwd=folder / "cwd",
            env=os.environ | {"TMPDIR": str(folder / "tmp")},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def wait(self):
        for _ in range(600):
            try:
                return urlopen(self.url, timeout=5)
            except (URLError, ConnectionError):
                assert self.process.poll() is None, self.process.stderr.read()
                time.sleep(0.25)
        raise AssertionError("the page did not start")

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

    def explain(self, path):
        """What the button's function returns for a file on the server, or None if it fails."""
        with urlopen(f"{self.url}/config") as answer:
            functions = json.loads(answer.read())["dependencies"]
        (number,) = [f["id"] for f in functions if f["api_name"] == "explain"]
        image = {"path": path, "meta": {"_type": "gradio.FileData"}}
        choices = [next(iter(table)) for table in (_app._SELECTIONS, _app._RANGES)]
        arguments = [image, "efficientnet-lite0", "bn2", "", *choices]
        content = {"data": arguments, "fn_index": number, "session_hash": "test"}
        self.post("queue/join", json.dumps(content).encode(), "application/json")
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
    assert status(server.url, Host="evil.example") == 400


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
        server.upload(bytes(_app.MAX_BYTES + 1))
    with error.value:
        assert error.value.code == 413


@pytest.mark.slow
def test_an_upload_is_explained(server, cat):
    answer = server.explain(server.upload(cat.read_bytes()))
    ((tag, frame),) = Attributes(answer).found
    assert tag == "iframe"
    (example,) = data_of(frame["srcdoc"])["examples"]
    assert "cat" in example["class"]
    assert example["units"]["count"] == 1280


@pytest.mark.slow
def test_an_upload_that_is_not_an_image(server):
    answer = Attributes(server.explain(server.upload(b"text")))
    assert answer.found == [("p", {"role": "alert"})]
    assert "not an image" in answer.text


@pytest.mark.slow
def test_a_port_in_use(server, capsys):
    finished = subprocess.run(
        [sys.executable, "-m", "captum_advise", "app", "--port", str(server.port)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 2
    (complaint,) = finished.stderr.splitlines()
    assert "the port is in use" in complaint


@pytest.mark.slow
def test_in_a_browser(server):
    from selenium.webdriver.support.ui import Select, WebDriverWait

    with chromium() as driver:
        wait = WebDriverWait(driver, 60)
        driver.get(server.url)

        def button(text):
            found = driver.find_elements("css selector", "button")
            return next((element for element in found if element.text == text), None)

        wait.until(lambda _: button("chelsea")).click()
        wait.until(lambda _: driver.find_elements("css selector", "img[src*='chelsea.png']"))
        time.sleep(1)  # until the page knows its new image
        button("Explain").click()
        frame = wait.until(lambda _: driver.find_element("css selector", "#result iframe"))
        # Another layer in the list, and a network that changes the list.
        assert driver.find_element("css selector", "[aria-label='Layer']").get_attribute("value")
        outside = "return performance.getEntriesByType('resource').map((entry) => entry.name)"
        hosts = {name.split("/")[2] for name in driver.execute_script(outside) if "//" in name}
        assert hosts == {f"127.0.0.1:{server.port}"}
        driver.switch_to.frame(frame)
        wait.until(lambda _: "cat" in driver.find_element("id", "headline").text)
        driver.find_element("css selector", "#ranking button").click()
        Select(driver.find_element("id", "comparison")).select_by_visible_text("GatedGradCam")
        assert driver.find_element("id", "comparison-note").text == "224 x 224 positions"
        # A request to another machine would be refused, and so complained of.
        assert complaints(driver) == []


@pytest.mark.slow
def test_leaves_nothing(tmp_path):
    server = Server(tmp_path)
    server.wait()
    server.process.send_signal(signal.SIGINT)
    out, err = server.process.communicate(timeout=30)
    assert server.process.returncode == 130
    assert out == f"{server.url} (Ctrl+C stops it)\n"
    assert err == ""
    assert list((tmp_path / "cwd").iterdir()) == []
    assert [path.name for path in (tmp_path / "tmp").iterdir() if "captum" in path.name] == []
