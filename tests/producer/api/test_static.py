"""The page's files as they are served."""

import re
from pathlib import Path

import httpx2
import pytest

WEB = Path(__file__).parents[3] / "producer" / "web"
FILES = [file.relative_to(WEB).as_posix() for file in sorted(WEB.rglob("*.*"))]
SCRIPTS = [name for name in FILES if name.endswith(".js")]


def test_the_page_runs_nothing_but_its_own_files(web: httpx2.Client) -> None:
    answer = web.get("/")
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self';" in policy
    assert "unsafe" not in policy
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert re.findall(r"<script(?![^>]* src=)|<style|style=|\son\w+=", answer.text) == []


@pytest.mark.parametrize("name", FILES)
def test_no_file_names_another_server(name: str) -> None:
    text = (WEB / name).read_text().replace("http://www.w3.org/2000/svg", "")
    assert "http://" not in text
    assert "https://" not in text


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_is_fetched_with_the_page_and_makes_no_markup_of_texts(name: str) -> None:
    page, script = (WEB / "index.html").read_text(), (WEB / name).read_text()
    assert f'"web/{name}"' in page
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(", script)


def test_a_file_that_is_known_is_not_sent_again(web: httpx2.Client) -> None:
    for path in ("/", "/web/app.js", "/web/views/job.js", "/web/style.css", "/web/icon.svg"):
        first = web.get(path)
        assert first.status_code == 200
        again = web.get(path, headers={"If-None-Match": first.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
        assert web.get(path, headers={"If-None-Match": '"other"'}).status_code == 200


def test_what_is_no_file_of_the_page_is_not_served(web: httpx2.Client) -> None:
    for path in ("/web/", "/web/none.js", "/web/..%2fapi/app.py", "/web/index.html"):
        assert web.get(path).status_code == 404
