"""Drives a browser through the pages of multus-control: what a person does, and what must never happen.

usage: browser.py everything|lan URL CODE CHROMIUM CONFIG_DIR PICTURES MULTUSCTL
"""

import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

from playwright.sync_api import expect, sync_playwright

PART, URL, CODE, CHROMIUM, CONFIG, PICTURES, MULTUSCTL = sys.argv[1:8]
URL, CONFIG, PICTURES = URL.rstrip("/"), Path(CONFIG), Path(PICTURES)
PASSWORD = "pump house three"
# Shown as it is wherever it is put in, and never run.
EVIL = "<script>window.owned=1</script><img src=x onerror=owned=1>'\"{{7*7}}"
# Only a failed test waits that long.
PATIENCE = 40_000

complaints = []


def say(text):
    print(f"browser: {text}", flush=True)


def watch(context, allowed=()):
    """Collects what no page may do."""
    context.set_default_timeout(PATIENCE)

    def requested(request):
        if request.url.startswith("data:"):
            return
        if urlsplit(request.url).netloc != urlsplit(URL).netloc:
            complaints.append(f"request to another host: {request.url}")

    def told(message):
        if message.type in ("error", "warning") and not any(part in message.text for part in allowed):
            complaints.append(f"console {message.type} on {message.page.url}: {message.text}")

    context.on("request", requested)
    context.on("console", told)
    context.on("weberror", lambda error: complaints.append(f"script error: {error.error}"))
    return context


def log_in(page, name):
    page.goto(f"{URL}/log-in")
    page.fill("#name", name)
    page.fill("#password", PASSWORD)
    page.click("button.primary")
    expect(page.get_by_role("heading", name="Services")).to_be_visible()


def review(page):
    with page.expect_navigation():
        page.click("button[value=review]")


def save(page):
    with page.expect_navigation():
        page.click("button[value=save]")
    assert page.locator("main .banner.bad").count() == 0, page.inner_text("main")


def untouched(page):
    """No text became a part of the page."""
    assert page.evaluate("window.owned") is None, f"a script from a text ran on {page.url}"


def set_up(page):
    page.goto(f"{URL}/events")
    expect(page).to_have_url(f"{URL}/set-up")
    page.fill("#code", "AAAA-AAAA")
    page.fill("#name", "admin")
    page.fill("#password", PASSWORD)
    page.fill("#again", PASSWORD)
    page.click("button.primary")
    expect(page.locator("#error")).to_contain_text("code")
    assert page.input_value("#name") == "admin", "what was typed stays"
    page.fill("#code", CODE)
    page.fill("#password", PASSWORD)
    page.fill("#again", PASSWORD)
    page.click("button.primary")
    expect(page.get_by_role("heading", name="Services")).to_be_visible()
    expect(page.locator(".site")).to_have_text("pump-house 3")
    say("the first user is made with the code")


def make_users(page):
    for name, level in (("guest", "100"), ("operator", "30")):
        page.goto(f"{URL}/users")
        page.fill("#name", name)
        page.fill("#password", PASSWORD)
        page.select_option("#level", level)
        page.click("text=Add the user")
        expect(page.locator("tbody")).to_contain_text(name)
    page.fill("#name", EVIL)
    page.fill("#password", PASSWORD)
    page.click("text=Add the user")
    expect(page.locator("main .banner.bad")).to_be_visible()
    assert page.input_value("#name") == EVIL
    untouched(page)
    say("users can be made")


def change_a_parameter(page):
    file = CONFIG / "config/panel.toml"
    page.goto(f"{URL}/configuration/config/panel")
    page.get_by_label("TCP port").fill("502o")
    page.get_by_label("Name", exact=True).fill(EVIL)
    page.get_by_label("Hosts").fill(f"a\n{EVIL}")
    page.get_by_label("Password").fill("very secret")
    page.click("text=Review 4 changes")
    field = page.locator(".field.wrong")
    expect(field).to_contain_text("Not a whole number. It was 5020.")
    assert page.get_by_label("TCP port").input_value() == "502o", "nothing is lost"
    assert page.get_by_label("Name", exact=True).input_value() == EVIL
    assert "5020" in file.read_text(), "nothing is saved"
    untouched(page)

    page.get_by_label("TCP port").fill("5021")
    page.get_by_label("Password").fill("very secret")
    review(page)
    expect(page.locator("h2").first).to_have_text("Save 4 changes?")
    expect(page.locator(".diff .out", has_text="port")).to_contain_text("port = 5020")
    expect(page.locator(".diff .in", has_text="port")).to_contain_text("port = 5021")
    assert "very secret" not in page.inner_text("main")
    untouched(page)
    page.click("text=Back to editing")
    assert page.get_by_label("TCP port").input_value() == "5021", "nothing is lost on the way back"
    review(page)
    page.get_by_label("Why").fill(EVIL)
    save(page)
    waiting = page.locator("#pending")
    expect(waiting).to_contain_text("will be applied in")
    text = file.read_text()
    assert "port = 5021 # the usual one" in text and "# how the panel is reached" in text, text
    before = page.locator("#pending [data-countdown]").inner_text()
    expect(page.locator("#pending [data-countdown]")).not_to_have_text(before)
    page.get_by_role("button", name="Now").click()
    expect(waiting).to_contain_text("healthy")
    untouched(page)
    say("a parameter is changed, reviewed, applied and healthy; the page followed by itself")


def inputs_by_modbus(port):
    """Discrete inputs 0 and 1 as a master sees them; nothing: nobody answers."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as master:
            master.sendall(bytes([0, 1, 0, 0, 0, 6, 1, 2, 0, 0, 0, 2]))
            answer = b""
            while len(answer) < 10:
                part = master.recv(64)
                if not part:
                    return None
                answer += part
    except OSError:
        return None
    return answer[9] if answer[:9] == bytes([0, 1, 0, 0, 0, 4, 1, 2, 1]) else None


def until(page, what, look):
    for _ in range(PATIENCE // 50):
        seen = look()
        if seen is not None:
            return seen
        page.wait_for_timeout(50)
    raise AssertionError(f"in vain: {what}")


def change_a_modbus_port(page):
    file = CONFIG / "config/modbus.toml"
    old = int(re.search(r"port = (\d+)", file.read_text())[1])
    until(page, "a master is answered", lambda: inputs_by_modbus(old))
    page.goto(f"{URL}/configuration/config/modbus")
    field = page.locator("[id='f-tcp.port']")
    expect(field).to_have_value(str(old))
    field.fill("70000")
    page.click("button[value=review]")
    expect(page.locator(".field.wrong")).to_contain_text("70000 is too large")
    new = old
    while new == old:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            new = free.getsockname()[1]
    page.locator("[id='f-tcp.port']").fill(str(new))
    review(page)
    expect(page.locator(".diff .in", has_text="port")).to_contain_text(f"port = {new}")
    save(page)
    assert f"port = {new} # of the control room" in file.read_text()
    page.get_by_role("button", name="Now").click()
    expect(page.locator("#pending")).to_contain_text("healthy")
    seen = until(page, "a master is answered at the new port", lambda: inputs_by_modbus(new))
    assert inputs_by_modbus(old) is None, "and at the old one no more"
    subprocess.run([MULTUSCTL, "io", "set", "DI2", "on"], check=True, stdout=subprocess.DEVNULL)
    until(page, "it is the plant that is seen", lambda: inputs_by_modbus(new) == (seen | 2) or None)
    subprocess.run([MULTUSCTL, "io", "set", "DI2", "off"], check=True, stdout=subprocess.DEVNULL)
    say("the port of a Modbus server is changed, and masters find it there")


def clear_a_secret(page):
    file = CONFIG / "config/panel.toml"
    pending = page.locator("#pending")
    page.goto(f"{URL}/configuration/config/panel")
    expect(page.get_by_text("clear: none is set any more")).to_have_count(0)
    page.get_by_label("Password").fill("very secret")
    review(page)
    save(page)
    page.get_by_role("button", name="Now").click()
    expect(pending).to_contain_text("healthy")
    page.goto(f"{URL}/configuration/config/panel")
    for width, size in (("wide", 1280), ("narrow", 360)):
        page.set_viewport_size({"width": size, "height": 800})
        picture(page, "form-secret", width, "light")
    page.set_viewport_size({"width": 1280, "height": 900})
    page.get_by_text("clear: none is set any more").click()
    review(page)
    expect(page.locator("tbody tr", has_text="Password")).to_contain_text("nothing")
    save(page)
    assert "password" not in file.read_text()
    page.get_by_role("button", name="Now").click()
    expect(pending).to_contain_text("healthy")
    say("a secret is cleared by its box")


def instances(page):
    page.goto(f"{URL}/children/spare")
    page.locator("summary", has_text="Instances").click()
    page.get_by_label("Processes that run spare").fill("2")
    page.get_by_role("button", name="Set and restart spare").click()
    expect(page).to_have_url(re.compile(r"/\?q=spare"))
    expect(page.locator("main .banner.ok")).to_contain_text("spare runs 2 times")
    for name in ("spare_0", "spare_1"):
        expect(page.locator(f"#c-{name} [data-label=Instances]")).to_contain_text("2")
    page.locator("#c-spare_1 summary", has_text="instances of spare").click()
    page.get_by_role("button", name="Run 1").locator("visible=true").click()
    expect(page.locator("#c-spare [data-label=Instances]")).to_contain_text("1")
    expect(page.locator("#c-spare_1")).to_have_count(0)
    say("the number of instances is set on both pages")


def call_a_reboot_off(page):
    page.goto(f"{URL}/system")
    page.locator("summary", has_text="Reboot in 5 minutes").click()
    page.get_by_role("button", name="Reboot in 5 minutes").click()
    ahead = page.locator("#reboot")
    expect(ahead).to_contain_text("the machine is started anew in")
    for width, size in (("wide", 1280), ("narrow", 360)):
        page.set_viewport_size({"width": size, "height": 800})
        picture(page, "reboot", width, "light")
    page.set_viewport_size({"width": 1280, "height": 900})
    page.get_by_role("button", name="Cancel the reboot").click()
    expect(page.locator("main .banner.ok")).to_contain_text("not started anew")
    expect(page.get_by_role("button", name="Cancel the reboot")).to_have_count(0)
    say("a reboot is scheduled and called off")


def reboot_now(browser):
    """The last thing: nobody answers after it."""
    context = browser.new_context()
    page = context.new_page()
    page.set_default_timeout(PATIENCE)
    log_in(page, "admin")
    page.goto(f"{URL}/system")
    page.locator("summary", has_text="Reboot now").click()
    page.get_by_role("button", name="Reboot now").click(no_wait_after=True)

    def is_down():
        try:
            socket.create_connection((urlsplit(URL).hostname, urlsplit(URL).port), timeout=5).close()
        except OSError:
            return True
        return None

    until(page, "the device goes down", is_down)
    context.close()
    say("the machine is started anew at once")


def is_refresh(request, by_itself):
    return request.resource_type == "fetch" and request.url == f"{URL}/" and ("x-refresh" in request.headers) == by_itself


def an_open_page_is_no_use(page):
    page.goto(f"{URL}/")
    with page.expect_request(lambda request: is_refresh(request, True)):
        pass
    with page.expect_request(lambda request: is_refresh(request, False)):
        page.mouse.move(100, 100)
        page.mouse.move(200, 150)
    with page.expect_request(lambda request: is_refresh(request, True)):
        pass
    say("a page that refreshes itself says so, unless somebody has touched it")


def conflict(context, page):
    page.goto(f"{URL}/configuration/config/panel")
    other = context.new_page()
    other.goto(f"{URL}/configuration/config/panel")
    other.get_by_label("Bind address").fill("10.0.0.1")
    review(other)
    save(other)
    expect(other.locator("#pending")).to_contain_text("saved and waiting")
    page.get_by_label("TCP port").fill("5022")
    review(page)
    expect(page.locator("main .banner.bad").first).to_contain_text(re.compile(r"admin saved version \d+ at \d\d:\d\d"))
    expect(page.locator(".diff .in", has_text="bind")).to_contain_text("10.0.0.1")
    assert page.get_by_label("TCP port").input_value() == "5022", "nothing is lost"
    review(page)
    save(page)
    text = (CONFIG / "config/panel.toml").read_text()
    assert "5022" in text and "10.0.0.1" in text, "both changes are there"
    other.close()
    # Both wait for the same restart; taking back removes both.
    page.get_by_role("button", name="Revert").click()
    expect(page.locator("#pending")).to_contain_text("Reverted")
    assert "5021" in (CONFIG / "config/panel.toml").read_text()
    say("a conflict is told with the difference, and nothing is lost")


def roll_back(page):
    page.goto(f"{URL}/configuration/config/panel?view=versions")
    expect(page.locator("tbody")).to_contain_text(EVIL)
    untouched(page)
    row = page.locator("tbody tr").last
    row.get_by_text("against now").click()
    expect(page.locator(".diff")).to_contain_text("5020")
    page.locator("tbody tr").last.get_by_text("bring back").first.click()
    page.get_by_role("button", name=re.compile("^Bring back version")).last.click()
    expect(page.locator("#pending")).to_contain_text("saved and waiting")
    assert "port = 5020" in (CONFIG / "config/panel.toml").read_text()
    page.get_by_role("button", name="Now").click()
    expect(page.locator("#pending")).to_contain_text("healthy")
    say("an older version is brought back")


def broken_file(page):
    file = CONFIG / "children/pump.toml"
    good = file.read_text()
    # A version that was seen before it was broken: mending it is then no change of what only root may change.
    page.goto(f"{URL}/configuration/children/pump")
    file.write_text(good.replace('deadline = "400ms"', 'dedline = "400ms'))
    page.goto(f"{URL}/configuration/children/pump")
    expect(page.locator("main .banner.bad").first).to_contain_text("no TOML")
    expect(page.locator(".found")).to_contain_text("line 4")
    page.goto(f"{URL}/")
    expect(page.locator("#c-pump")).to_contain_text("running")
    page.goto(f"{URL}/configuration/children/pump")
    page.fill("#text", good.replace('"400ms"', '"400 bananas"'))
    review(page)
    expect(page.locator(".found")).to_contain_text("heartbeat.deadline")
    assert "bananas" in page.input_value("#text"), "nothing is lost"
    page.fill("#text", good + "# mended\n")
    review(page)
    save(page)
    page.get_by_role("button", name="Now").click()
    expect(page.locator("#pending")).to_contain_text("healthy")
    assert file.read_text() == good + "# mended\n"
    say("a broken file is shown, mended and in force; other pages worked")


def hang(page):
    page.goto(f"{URL}/children/pump")
    pid = int(page.locator(".facts div", has_text="process").locator("dd").inner_text())
    page.goto(f"{URL}/")
    page.evaluate("window.sameDocument = true")
    page.fill("#q", "pump")
    row = page.locator("#c-pump")
    expect(page.locator("#c-panel")).to_have_count(0)
    os.kill(pid, signal.SIGSTOP)
    expect(row.locator(".state")).to_contain_text("outputs forced: DO1 off, DO2 on")
    expect(page.locator("#verdict")).to_contain_text("1 child in safe state: pump")
    expect(page).to_have_title(re.compile("^▲ 1 child in safe state: pump"))
    picture(page, "hang", "wide", "light")
    expect(row.locator(".state")).to_contain_text("running")
    expect(row.locator(".fault")).to_contain_text("hang")
    expect(page.locator("#verdict")).to_contain_text("nothing failing")
    assert page.evaluate("window.sameDocument"), "the page was never loaded again"
    assert page.input_value("#q") == "pump", "what is typed stays"
    row.get_by_role("link", name="hang").click()
    story = page.locator("#last-fault .story")
    expect(story).to_be_visible()
    for word in ("last beat", "deadline", "detected", "safe", "killed", "reaped", "spawned", "ready"):
        expect(story).to_contain_text(word)
    page.get_by_role("link", name="whole report").click()
    expect(page.locator("h1")).to_contain_text("hang")
    expect(page.locator("pre.evidence")).not_to_be_visible()
    page.locator("summary", has_text="Evidence").click()
    expect(page.locator("pre.evidence")).to_be_visible()
    say("a hang is seen live, with its story and its evidence")


def orders(page):
    page.goto(f"{URL}/children/pump")
    page.locator("summary", has_text="stop…").click()
    expect(page.locator(".pop", has_text="Stop pump")).to_contain_text("DO1 off, DO2 on")
    page.keyboard.press("Escape")
    expect(page.get_by_role("button", name="Stop pump")).not_to_be_visible()
    page.locator("summary", has_text="stop…").click()
    page.get_by_role("button", name="Stop pump").click()
    expect(page.locator(".bigstate")).to_contain_text("stopped")
    page.get_by_role("button", name="start").click()
    expect(page.locator(".bigstate")).to_contain_text("running")
    page.goto(f"{URL}/system")
    page.get_by_text("Read the configuration again").click()
    expect(page.locator("main .banner.ok")).to_contain_text("read again")
    page.locator("summary", has_text="Reboot now").click()
    expect(page.locator(".pop:visible")).to_contain_text("cannot be reached for a minute")
    page.keyboard.press("Escape")
    say("orders ask once and say what follows")


def follow_a_log(page):
    page.goto(f"{URL}/configuration/config/pump")
    page.get_by_label("Message").fill(EVIL)
    page.get_by_label("Every").fill("5")
    review(page)
    save(page)
    page.get_by_role("button", name="Now").click()
    expect(page.locator("#pending")).to_contain_text("healthy")
    page.goto(f"{URL}/logs/pump")
    expect(page.locator("#log")).to_contain_text(EVIL)
    lines = page.locator("#log li").count()
    page.wait_for_function("n => document.querySelectorAll('#log li').length > n + 5", arg=lines)
    texts = page.locator("#log li").all_inner_texts()
    assert len(texts) == len(set(texts)), "no line comes twice"
    page.fill("#q", EVIL)
    page.get_by_role("button", name="Search").click()
    expect(page.locator("#log")).to_contain_text(EVIL)
    untouched(page)
    for path in ("/events?q=", "/?q=", "/faults?child=", "/configuration/config/pump?done="):
        page.goto(URL + path + "%3Cscript%3Ewindow.owned%3D1%3C%2Fscript%3E")
        untouched(page)
    say("a log is followed; texts stay texts")


def edit_a_text(page):
    file = CONFIG / "files/panel/layout.txt"
    page.goto(f"{URL}/configuration/config/panel")
    version = page.locator("[id='f-version']").inner_text()
    page.get_by_role("link", name="Edit the text of Layout").click()
    expect(page.locator("h1")).to_contain_text("files/panel:layout")
    expect(page.locator("main")).to_contain_text("There is no such file yet")
    page.fill("#text", f"[rows\n{EVIL}\n")
    review(page)
    expect(page.locator(".diff .in", has_text="[rows")).to_be_visible()
    untouched(page)
    save(page)
    assert file.read_text() == f"[rows\n{EVIL}\n"
    page.get_by_role("button", name="Now").click()
    expect(page.locator("#pending")).to_contain_text("healthy")
    page.goto(f"{URL}/configuration/files/panel:layout?view=versions")
    expect(page.locator("tbody tr")).to_have_count(1)
    # One that is a secret goes in, and never out.
    page.goto(f"{URL}/configuration/config/panel")
    page.get_by_label("Log-in file").fill("../users.toml")
    page.click("button[value=review]")
    expect(page.locator(".field.wrong")).to_contain_text("is not the path of a file")
    page.get_by_label("Log-in file").fill("login.txt")
    review(page)
    save(page)
    page.get_by_role("button", name="Now").click()
    expect(page.locator("#pending")).to_contain_text("healthy")
    page.goto(f"{URL}/configuration/config/panel")
    assert page.locator("[id='f-version']").inner_text() != version, "the version rises by itself"
    page.get_by_role("link", name="Edit the text of Log-in file").click()
    page.fill("#text", "swordfish\n")
    review(page)
    assert "swordfish" not in page.inner_text("main")
    save(page)
    expect(page.locator("main")).to_contain_text("never shown")
    assert "swordfish" not in page.content()
    page.get_by_role("button", name="Now").click()
    expect(page.locator("#pending")).to_contain_text("healthy")
    page.goto(f"{URL}/configuration/files/panel:login?view=versions&of=1")
    assert "swordfish" not in page.content()
    say("texts that parameters name are edited; a secret one is never shown")


def comes_back_ill(page):
    page.goto(f"{URL}/configuration/config/panel")
    page.get_by_label("Name", exact=True).fill("crash")
    review(page)
    save(page)
    page.get_by_role("button", name="Now").click()
    pending = page.locator("#pending")
    expect(pending).to_contain_text("unhealthy")
    expect(pending).to_contain_text("panel failed")
    for width, size in (("wide", 1280), ("narrow", 360)):
        page.set_viewport_size({"width": size, "height": 800})
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)
            picture(page, "unhealthy", width, scheme)
    page.set_viewport_size({"width": 1280, "height": 900})
    page.emulate_media(color_scheme="light")
    page.get_by_role("button", name=re.compile("^Back to version")).click()
    expect(pending).to_contain_text("Reverted")
    assert '"crash"' not in (CONFIG / "config/panel.toml").read_text()
    page.goto(f"{URL}/children/panel")
    expect(page.locator(".bigstate")).to_contain_text("running")
    say("a child that does not come back is offered the version before, with one click")


def test_notification(page):
    page.goto(f"{URL}/system")
    page.select_option("#target", "pager")
    page.get_by_role("button", name="Send a test").click()
    expect(page.locator("main .banner.ok")).to_contain_text("pager")
    page.select_option("#target", "broken")
    page.get_by_role("button", name="Send a test").click()
    expect(page.locator("h1")).to_have_text("System")
    expect(page.locator("main .banner.bad")).to_contain_text("exit status: 3")
    assert page.input_value("#target") == "broken", "what was chosen stays"
    picture(page, "test-failed", "wide", "light")
    say("a test notification is sent, and a failure is told")


def everywhere(page, name):
    for width, size in (("wide", 1280), ("narrow", 360)):
        page.set_viewport_size({"width": size, "height": 800})
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
            picture(page, name, width, scheme)
            room = page.evaluate("[document.documentElement.scrollWidth, document.documentElement.clientWidth]")
            assert room[0] <= room[1], f"{name} is wider than its window of {size}: {room}"
            faint = page.evaluate(FAINT)
            assert not faint, f"{name} ({scheme}): too little contrast: {faint[:5]}"
    page.set_viewport_size({"width": 1280, "height": 900})
    page.emulate_media(color_scheme="light")


def inputs_and_outputs(page):
    page.goto(f"{URL}/io")
    expect(page.locator("#io")).to_contain_text("NO HARDWARE")
    page.evaluate("window.sameDocument = true")
    value = lambda name: page.locator(f"#l-{name} .value")
    expect(value("DI1")).to_have_text("off")
    subprocess.run([MULTUSCTL, "io", "set", "DI1", "on"], check=True, stdout=subprocess.DEVNULL)
    expect(value("DI1")).to_have_text("on")
    # A question that is open stays open, and nothing is done before it is answered.
    valve = page.locator("#l-VALVE")
    valve.locator("summary", has_text="hold…").click()
    pop = valve.locator(".pop:visible")
    expect(pop).to_contain_text("held, whatever pump asks for")
    expect(pop).to_contain_text("nobody is in danger")
    assert page.evaluate("document.activeElement.name") == "value", "the field has the focus"
    everywhere(page, "io-hold")
    page.keyboard.press("Escape")
    subprocess.run([MULTUSCTL, "io", "set", "AO1", "7.5"], check=True, stdout=subprocess.DEVNULL)
    expect(value("AO1")).to_have_text("7.500 V")
    assert page.evaluate("window.sameDocument"), "the page was never loaded again"
    valve.locator("summary", has_text="hold…").click()
    pop.get_by_label("Value of VALVE").fill("140")
    pop.get_by_role("button", name="Hold").click()
    expect(page.locator("main .banner.bad").first).to_contain_text("expected 0 to 100 %")
    valve.locator("summary", has_text="hold…").click()
    pop.get_by_label("Value of VALVE").fill("40")
    pop.get_by_role("button", name="Hold").click()
    expect(page.locator("main .banner.ok")).to_contain_text("VALVE is held at 40.000 %")
    expect(page.locator("#io")).to_contain_text("Held by a person: VALVE at 40.000 %")
    expect(valve).to_contain_text("held by a person")
    expect(page.locator("#top")).to_contain_text("held by a person")
    page.locator("#l-DO3 summary", has_text="set…").click()
    page.get_by_role("button", name="Set on").locator("visible=true").click()
    expect(value("DO3")).to_have_text("on")
    expect(page.locator("#l-DO3")).to_contain_text("requested")
    everywhere(page, "io-held")
    valve.locator("summary", has_text="release…").click()
    page.get_by_role("button", name="Release VALVE").click()
    expect(value("VALVE")).to_have_text("100.000 %")
    expect(valve).to_contain_text("safe")
    page.get_by_role("link", name="History").click()
    row = page.locator("tbody tr", has_text="VALVE").filter(has_text="forced")
    expect(row.first).to_contain_text("40.000 %")
    everywhere(page, "io-history")
    page.select_option("#source", "forced")
    page.get_by_role("button", name="Show").click()
    expect(page.locator("tbody tr", has_text="DI1")).to_have_count(0)
    untouched(page)
    say("inputs are seen live, an output is set, held and released, and all of it is in the history")


def tokens(page):
    page.goto(f"{URL}/tokens")
    page.fill("#name", "meter")
    page.get_by_role("button", name="Make the token").click()
    token = page.locator(".token").inner_text()
    assert len(token) > 20
    page.goto(f"{URL}/tokens")
    assert token not in page.content(), "it is shown once only"
    page.locator("summary", has_text="remove").click()
    page.get_by_role("button", name="Remove meter").click()
    expect(page.locator("main")).to_contain_text("There are no tokens")
    say("a token is shown once, and can be removed")


def lower_user(browser):
    context = watch(browser.new_context(), allowed=("403",))
    page = context.new_page()
    log_in(page, "guest")
    expect(page.locator("#c-pump")).to_be_visible()
    assert page.locator("#list button, #list summary").count() == 0, "no orders for somebody who may only look"
    assert page.get_by_role("link", name="Users").count() == 0
    csrf = page.locator("input[name=csrf]").first.get_attribute("value")
    for path, form in (("/children/pump/stop", {}), ("/users", {"action": "remove", "name": "admin"}), ("/system", {"action": "reload"})):
        answer = context.request.post(URL + path, form={"csrf": csrf, **form})
        assert answer.status == 403 and "needs level" in answer.text(), (path, answer.status)
    assert context.request.post(f"{URL}/children/pump/stop", form={"csrf": "x"}).status == 403
    page.goto(f"{URL}/users")
    expect(page.locator("h1")).to_have_text("That is not allowed")
    page.goto(f"{URL}/configuration/config/panel")
    assert page.locator("button[value=review]").count() == 0
    assert page.get_by_label("TCP port").is_disabled()
    page.click("text=log out")
    expect(page).to_have_url(f"{URL}/log-in")
    context.close()
    context = watch(browser.new_context())
    page = context.new_page()
    log_in(page, "operator")
    assert page.locator("#c-pump summary", has_text="stop…").count() == 1
    assert page.locator("#c-pump .switch").count() == 0
    page.goto(f"{URL}/io")
    assert page.locator("#l-DO3 summary").all_inner_texts() == ["set…"], "holding is for administrators"
    context.close()
    say("everybody may do what the level says, and no more")


def without_scripts(browser):
    context = watch(browser.new_context(java_script_enabled=False))
    page = context.new_page()
    log_in(page, "admin")
    page.get_by_role("link", name="panel", exact=True).click()
    expect(page.locator("h1")).to_have_text("panel")
    page.goto(f"{URL}/configuration/config/panel")
    page.get_by_label("TCP port").fill("5055")
    review(page)
    save(page)
    expect(page.locator("#pending")).to_contain_text("saved and waiting")
    page.get_by_role("button", name="Revert").click()
    expect(page.locator("#pending")).to_contain_text("Reverted")
    page.goto(f"{URL}/io")
    page.locator("#l-DO3 summary", has_text="set…").click()
    page.get_by_role("button", name="Set off").locator("visible=true").click()
    expect(page.locator("#l-DO3 .value")).to_have_text("off")
    page.goto(f"{URL}/?show=off")
    expect(page.locator("tbody tr")).to_have_count(1)
    context.close()
    say("everything works without scripts")


def picture(page, name, width, scheme):
    page.screenshot(path=PICTURES / f"{name}-{width}-{scheme}.png", full_page=True)


def pages_of(page):
    page.goto(f"{URL}/faults")
    fault = page.locator("tbody th a").first.get_attribute("href")
    return {
        "services": "/",
        "child": "/children/pump",
        "child-hour": "/children/pump?range=hour",
        "configuration": "/configuration",
        "form": "/configuration/config/panel",
        "supervision": "/configuration/children/pump",
        "text": "/configuration/children/pump?view=text",
        "text-file": "/configuration/files/panel:layout",
        "secret-file": "/configuration/files/panel:login",
        "versions": "/configuration/config/panel?view=versions",
        "faults": "/faults",
        "fault": fault,
        "logs": "/logs",
        "log": "/logs/pump",
        "events": "/events",
        "io": "/io",
        "io-history": "/io/history",
        "users": "/users",
        "tokens": "/tokens",
        "account": "/account",
        "system": "/system",
        "missing": "/nothing",
    }


def look_at_everything(browser):
    for width, size in (("wide", 1280), ("narrow", 360)):
        for scheme in ("light", "dark"):
            context = watch(
                browser.new_context(viewport={"width": size, "height": 800}, color_scheme=scheme, reduced_motion="reduce"),
                allowed=("404",),
            )
            page = context.new_page()
            page.goto(f"{URL}/log-in")
            picture(page, "log-in", width, scheme)
            log_in(page, "admin")
            for name, path in pages_of(page).items():
                page.goto(URL + path)
                page.wait_for_load_state("load")
                picture(page, name, width, scheme)
                room = page.evaluate("[document.documentElement.scrollWidth, document.documentElement.clientWidth]")
                assert room[0] <= room[1], f"{path} is wider than its window of {size}: {room}"
                nameless = page.evaluate(NAMELESS)
                assert not nameless, f"{path}: without a label: {nameless}"
                repeated = page.evaluate(REPEATED_IDS)
                assert not repeated, f"{path}: ids used twice: {repeated}"
                faint = page.evaluate(FAINT)
                assert not faint, f"{path} ({scheme}): too little contrast: {faint[:5]}"
            page.goto(f"{URL}/")
            page.keyboard.press("Tab")
            assert page.evaluate("document.activeElement.className") == "skip", "the first key leads to the content"
            context.close()
    say(f"pictures of all pages are in {PICTURES}")


NAMELESS = """() => [...document.querySelectorAll('input:not([type=hidden]), select, textarea, button, a')]
    .filter(e => !(e.labels?.length || e.getAttribute('aria-label') || e.textContent.trim() || e.hidden))
    .map(e => e.outerHTML.slice(0, 120))"""
REPEATED_IDS = """() => { const seen = new Set(), twice = [];
    for (const e of document.querySelectorAll('[id]')) { if (seen.has(e.id)) twice.push(e.id); seen.add(e.id); } return twice; }"""
# WCAG AA: 4.5 to 1 for text, 3 to 1 for large text.
FAINT = """() => {
    const parse = c => { const n = c.match(/[\\d.]+/g).map(Number); return c.startsWith('color(') ? [n[0]*255, n[1]*255, n[2]*255, n[3] ?? 1] : [n[0], n[1], n[2], n[3] ?? 1]; };
    const light = c => { const [r, g, b] = c.map(v => (v /= 255) <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4); return .2126 * r + .7152 * g + .0722 * b; };
    const over = (a, b) => a.slice(0, 3).map((v, i) => v * a[3] + b[i] * (1 - a[3]));
    const behind = e => { const layers = []; for (; e; e = e.parentElement) { const c = parse(getComputedStyle(e).backgroundColor); if (c[3] > 0) layers.push(c); if (c[3] === 1) break; }
        return layers.reverse().reduce((b, c) => over(c, b), [255, 255, 255]); };
    const faint = new Set();
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (walker.nextNode()) {
        const e = walker.currentNode.parentElement;
        if (!walker.currentNode.data.trim() || !e.checkVisibility({ visibilityProperty: true }) || e.closest('svg, .vh, option, :disabled, [hidden]')) continue;
        const style = getComputedStyle(e), back = behind(e), ink = over(parse(style.color), back);
        const [a, b] = [light(ink), light(back)].sort((x, y) => y - x), size = parseFloat(style.fontSize);
        const least = size >= 24 || (size >= 18.7 && style.fontWeight >= 700) ? 3 : 4.5;
        if ((a + .05) / (b + .05) < least) faint.add(`${e.className || e.nodeName} "${walker.currentNode.data.trim().slice(0, 30)}" ${((a + .05) / (b + .05)).toFixed(2)}`);
    }
    return [...faint];
}"""


def the_lan(page):
    """A wrong address comes back by itself, a good one stays because somebody says so."""
    lan = page.locator("#lan")

    def change(values):
        page.goto(f"{URL}/configuration/config/lan")
        for name, value in values.items():
            page.locator(f"[id='f-{name}']").fill(value)
        review(page)

    def apply():
        save(page)
        page.get_by_role("button", name="Now").click()
        page.goto(f"{URL}/children/lan")

    page.goto(f"{URL}/children/lan")
    expect(lan).to_contain_text("confirmed: confirmed by the router 192.168.77.1")
    picture(page, "lan", "wide", "light")
    change({"addresses": "10.9.9.9/33", "gateway": "10.8.0.1"})
    expect(page.locator("main .bad").first).to_be_visible()
    expect(page.locator("main")).to_contain_text("10.9.9.9/33")
    picture(page, "lan-refused", "wide", "light")
    change({"addresses": "10.9.9.9/24", "gateway": "10.9.9.1"})
    apply()
    expect(lan).to_contain_text("pending")
    expect(lan).to_contain_text("10.9.9.9/24")
    expect(lan).to_contain_text("rejected")
    expect(lan).to_contain_text("192.168.77.9/24")
    picture(page, "lan-rejected", "wide", "light")
    say("a wrong address is taken back")
    page.goto(f"{URL}/configuration/config/lan")
    page.locator("[name='v:profile'][value='none']").check()
    page.locator("[id='f-addresses']").fill("10.1.2.3/16")
    page.locator("[id='f-gateway']").fill("")
    page.locator("[id='f-confirm_within']").fill("1h")
    review(page)
    apply()
    expect(lan).to_contain_text("pending")
    picture(page, "lan-pending", "wide", "light")
    page.set_viewport_size({"width": 360, "height": 800})
    picture(page, "lan-pending", "narrow", "dark")
    page.get_by_role("button", name="Let the change stand").click()
    expect(lan).to_contain_text("confirmed by somebody")
    expect(lan).to_contain_text("10.1.2.3/16")
    expect(page.get_by_role("button", name="Let the change stand")).to_have_count(0)
    say("a change stands because somebody said so")
    page.goto(f"{URL}/configuration/config/lan")
    page.locator("[name='v:profile'][value='wan-via-lan']").check()
    page.locator("[id='f-dhcp']").check()
    page.locator("[id='f-addresses']").fill("")
    review(page)
    apply()
    expect(lan).to_contain_text("confirmed by the router 192.168.77.1")
    expect(lan).to_contain_text("from 192.168.77.1 for 120 s")
    picture(page, "lan-dhcp", "narrow", "light")
    say("an address by DHCP, with its lease")


def everything(context, page, browser):
    make_users(page)
    an_open_page_is_no_use(page)
    change_a_parameter(page)
    conflict(context, page)
    roll_back(page)
    change_a_modbus_port(page)
    broken_file(page)
    hang(page)
    orders(page)
    follow_a_log(page)
    edit_a_text(page)
    clear_a_secret(page)
    comes_back_ill(page)
    instances(page)
    call_a_reboot_off(page)
    test_notification(page)
    inputs_and_outputs(page)
    tokens(page)
    context.close()
    lower_user(browser)
    without_scripts(browser)
    look_at_everything(browser)
    reboot_now(browser)


def main():
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        # A form that is wrong is answered with 4xx, which the console tells.
        expected = ("422", "403", "409", "404")
        context = watch(browser.new_context(viewport={"width": 1280, "height": 900}), expected)
        page = context.new_page()
        page.on("dialog", lambda dialog: dialog.accept())
        expect.set_options(timeout=PATIENCE)
        set_up(page)
        if PART == "lan":
            the_lan(page)
        else:
            everything(context, page, browser)
        browser.close()
    for complaint in complaints:
        say(complaint)
    sys.exit(1 if complaints else 0)


main()
