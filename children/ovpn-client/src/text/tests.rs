use super::*;

fn judge(text: &str) -> Result<Found, String> {
    check(text, false, |file| file != "missing.pem").map_err(|wrong| wrong.join("\n"))
}

#[test]
fn a_usual_client_is_good_and_its_certificate_is_found() {
    let text = "client # a comment\nremote vpn.example.org 1194\n; nothing\ndev tun\nscript-security 1\n\
                ca \"ca file.pem\"\n<cert>\nup is text here\n</cert>\n<connection>\nremote b 1194\n</connection>\n";
    let certificate = Some(Source::Inline("up is text here\n".into()));
    assert_eq!(judge(text), Ok(Found { certificate, ..Found::default() }));
    let found = judge("remote a\ncert me.pem\nauth-retry none").expect("good");
    let certificate = Some(Source::File("me.pem".into()));
    assert_eq!(found, Found { certificate, has_auth_retry: true, ..Found::default() });
}

#[test]
fn what_runs_programs_is_refused_however_it_is_written() {
    for line in [
        "up /bin/x",
        "--up /bin/x",
        "  \tup /bin/x",
        "\"up\" /bin/x",
        "'up' /bin/x",
        "\\ up /bin/x",
        "setenv opt up /bin/x",
        "--setenv opt --up /bin/x",
        "\\ setenv \"opt\" up /bin/x",
        "setenv opt plugin /lib/x.so",
        "setenv opt config other",
        "setenv opt daemon",
        "setenv LD_PRELOAD /lib/x.so",
        "setenv PATH /tmp",
        "genkey secret /etc/x",
        "status /etc/passwd",
        "replay-persist ../../x",
        "<connection>\nsetenv opt plugin /lib/x.so\n</connection> y",
        "script-security 2",
        "script-security \"3\"",
        "script-security",
        "plugin /lib/x.so",
        "<connection>\nup /bin/x\n</connection>",
        "<up>\n</up>",
        "tls-verify x",
        "iproute x",
    ] {
        let refused = judge(&format!("remote a\n{line}\n")).expect_err(line);
        assert!(refused.starts_with("line ") && refused.contains("is refused"), "{line}: {refused}");
    }
    assert!(judge("\u{feff}up /bin/x\nremote a\n").expect_err("a mark at the beginning").contains("up is refused"));
    assert!(
        check("remote a\nup /bin/x\nscript-security 2\nsetenv PATH /bin\nstatus /x\n", true, |_| true).is_ok(),
        "where it is allowed"
    );
}

#[test]
fn nothing_is_hidden_between_tags_that_are_none_to_openvpn() {
    let long = "x".repeat(255);
    for hidden in [
        "<foo> y\nplugin /x.so\n</foo> y",
        "setenv opt <foo>\nplugin /x.so\n</foo>",
        "\u{feff}<foo>\nplugin /x.so\n</foo> y",
        "\u{a0}<foo>\nplugin /x.so\n</foo> y",
        "<foo>\n\u{a0}</foo>\n<bar>\n</foo>\nplugin /x.so\n</bar> y",
        &format!("<foo>\n{long}</foo>\nplugin /x.so\n</foo>"),
        "<connection>\n<foo>\n</connection>\nplugin /x.so\n</foo>",
        "<foo>\n</foo>bar\nplugin /x.so\n</foo>",
        "<foo>\n\u{b}</foo>\nplugin /x.so\n</foo>",
    ] {
        let text = format!("remote a\nignore-unknown-option <foo> </foo> </bar>\n{hidden}\n");
        let refused = judge(&text).expect_err(hidden);
        let is_seen = ["plugin is refused", "in the middle", "is never closed"];
        assert!(is_seen.iter().any(|seen| refused.contains(seen)), "{hidden:?}: {refused}");
    }
    assert!(judge("remote a\n<ca>\0 x\nplugin /x.so\n</ca>").expect_err("cut").contains("a byte of 0"));
    assert!(judge(&format!("remote a\n# {long}\n")).expect_err("long").contains("line 2: it is longer"));
    let text = format!("remote a\n<ca>\n{long}{long}\nup /bin/x\n  </ca> end\n");
    assert!(judge(&text).is_ok(), "between tags anything may stand");
}

#[test]
fn words_are_those_of_openvpn() {
    for (line, expected) in [
        ("a b\tc\r", vec!["a", "b", "c"]),
        ("a\u{b}b\u{c}c", vec!["a", "b", "c"]),
        ("\"a b\"c 'd e'f", vec!["a b", "c", "d e", "f"]),
        ("a\"b c\"d", vec!["a\"b", "c\"d"]),
        ("\"\" ''", vec!["", ""]),
        ("a\\ b \\\"c \"d\\\"e\" 'f\\g' h\\\\i", vec!["a b", "\"c", "d\"e", "f\\g", "h\\i"]),
        ("\\ a", vec!["a"]),
        ("\\# a", vec![]),
        ("a # b", vec!["a"]),
        ("a#b ;c", vec!["a#b"]),
        ("\u{a0}a\u{2003}b", vec!["\u{a0}a\u{2003}b"]),
        ("", vec![]),
        ("\\", vec![]),
    ] {
        assert_eq!(words(line).expect(line), expected, "{line:?}");
    }
    for line in ["\\a", "a\\b", "a\\'b", "\"a\\b\"", "\"a", "'a", "\"a\\\"", "a\\"] {
        assert!(words(line).is_err(), "{line:?}");
    }
}

#[test]
fn secrets_are_found() {
    let text = "remote a\nkey me.key\nauth-user-pass\ntls-auth ta.key 1\nca ca.pem\nauth-user-pass [inline]\n";
    let found = judge(text).expect("good");
    assert_eq!((found.has_secret, found.secret_files), (false, vec!["me.key".into(), "ta.key".into()]));
    let found = judge("remote a\n<ca>\nx\n</ca>\n<connection>\n<tls-crypt>\nx\n</tls-crypt>\n</connection>\n");
    assert!(found.expect("good").has_secret);
}

#[test]
fn other_mistakes_are_told_with_their_line() {
    for (text, expected) in [
        ("dev tun", "no server is named"),
        ("remote a\nmanagement 127.0.0.1 7505", "line 2: management is refused"),
        ("remote a\nmanagement-hold", "line 2: management-hold is refused"),
        ("remote a\ndaemon", "line 2: daemon is refused"),
        ("remote a\nconfig other", "line 2: config is refused"),
        ("remote a\n<cert>\nx", "line 2: <cert> is never closed by </cert>"),
        ("remote a\nca missing.pem", "line 2: ca: missing.pem cannot be read"),
        ("remote \"a", "line 1: a quotation mark is never closed"),
    ] {
        let wrong = check(text, true, |file| file != "missing.pem").expect_err(text).join("\n");
        assert!(wrong.contains(expected), "{text}: {wrong}");
    }
    for soup in ["<", ">", "<>", "</>", "\\", "'", "<a>\n</b>", "\0", "--"] {
        let _ = judge(soup);
    }
}
