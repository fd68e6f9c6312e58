use super::*;

fn told(text: &str) -> Vec<String> {
    let config: Config = toml::from_str(text).expect("of the right types");
    config.check().map_or_else(|error| error.to_string().lines().map(str::to_owned).collect(), |()| Vec::new())
}

#[test]
fn the_defaults_are_good_and_lead_nowhere() {
    let config = Config::default();
    let valid = config.valid().expect("good");
    assert!(valid.bind.is_loopback() && config.port == 9091 && config.sender.source == Source::Inputs);
    assert_eq!(config.sender.interval.duration(), Duration::from_secs(300));
    assert!(config.sender.receivers.is_empty() && config.receiver.senders.is_empty());
}

#[test]
fn everything_that_is_wrong_is_told() {
    let text = r#"
        bind = "localhost"
        port = 0
        [sender]
        interval = "1ms"
        [[sender.lines]]
        local = "DI1"
        remote = "DO1"
        debounce = "1h"
        [[sender.lines]]
        local = "DI2"
        remote = "DO1"
        [[sender.lines]]
        local = "DI3"
        remote = "LAMP"
        [[sender.lines]]
        local = ""
        remote = "X1"
        [[sender.receivers]]
        address = "192.168.1.7"
        protocol = "legacy"
        token = "token"
        [[sender.receivers]]
        address = "pump:9091"
        certificate = "own.pem"
        [[sender.receivers]]
        address = "pump:9091"
        [receiver]
        client_ca = ""
        key = "own.key"
        [[receiver.senders]]
        name = "a"
        outputs = ["DO1", "DO1"]
        timeout = "1ms"
        [[receiver.senders]]
        name = "a"
        protocol = "legacy"
        token = "token"
        outputs = ["DO1"]
        [[receiver.senders]]
        name = "b"
        protocol = "legacy"
        addresses = ["10.0.0.0/8", "ten"]
        [[receiver.senders]]
        name = "c"
        protocol = "legacy"
        addresses = ["10.1.0.0/16"]
        outputs = ["DO3"]
        [[receiver.senders]]
        certificate = "pump"
        outputs = ["DO4"]
    "#;
    let expected = [
        "bind: found \"localhost\", expected an IP address such as 127.0.0.1",
        "sender.interval: 1ms is out of range, expected 1s to 24h",
        "sender.lines[0].debounce: 1h is out of range, expected 0s to 1min",
        "sender.lines[1].remote: DO1 is the remote of another line already",
        "sender.lines[2].remote: found \"LAMP\"; for a receiver of the original it ends with a number from 1 to 8",
        "sender.lines[3].local: the name of a line is missing",
        "sender.lines[3].remote: number 1 is that of another line already",
        "sender.receivers[0].address: found \"192.168.1.7\", expected host and port such as \"192.168.1.7:9091\"",
        "sender.receivers[0].protocol: the original knows neither TLS nor tokens",
        "sender.receivers[1]: certificate and key belong together; set both or none",
        "sender.receivers[1].ca: a certificate is shown over TLS only; name the authority of the receiver",
        "sender.receivers[2].address: pump:9091 is there already",
        "receiver: certificate and key belong together; set both or none",
        "receiver.senders[0].outputs[1]: DO1 is there already",
        "receiver.senders[0].timeout: 1ms is out of range, expected 200ms to 24h",
        "receiver.senders[1].name: a is there already",
        "receiver.senders[1].outputs[0]: DO1 is set by sender a already; one output has one sender",
        "receiver.senders[1].addresses: a sender of the original is known by its address; name it",
        "receiver.senders[1].protocol: the original knows neither tokens nor certificates",
        "receiver.senders[2].outputs: there is none",
        "receiver.senders[2].addresses[1]: found \"ten\", expected a network such as 192.168.1.0/24 or an address",
        "receiver.senders[3].addresses: senders of the original are known by their address only, and b may come from there, too",
        "receiver.senders[4].name: it is missing",
        "receiver.senders[4].certificate: name the authority of such certificates in receiver.client_ca",
        "port: senders need one",
    ];
    assert_eq!(told(text), expected);
}

#[test]
fn a_sender_of_the_original_may_have_lines_that_set_nothing_here() {
    let text = r#"
        [[receiver.senders]]
        name = "old windmill"
        protocol = "legacy"
        addresses = ["192.168.1.20"]
        outputs = ["DO1", "", "DO2"]
        [[receiver.senders]]
        name = "old pump"
        protocol = "legacy"
        addresses = ["192.168.1.21"]
        outputs = ["", "", "", "", "DO5", "DO6"]
    "#;
    assert_eq!(told(text), Vec::<String>::new());
    let config: Config = toml::from_str(text).expect("of the right types");
    assert_eq!(config.receiver.senders[1].outputs().collect::<Vec<_>>(), ["DO5", "DO6"]);
    let none = text.replace("\"DO5\", \"DO6\"", "\"\"");
    assert_eq!(told(&none), ["receiver.senders[1].outputs: there is none"]);
    let new = text.replace("protocol = \"legacy\"", "");
    assert_eq!(told(&new).len(), 5, "{:?}", told(&new));
}

#[test]
fn the_examples_of_the_documentation_are_good() {
    let text = include_str!("../../../../docs/mirror.md");
    let blocks: Vec<&str> = text.split("```toml\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    let mirrors: Vec<&&str> = blocks.iter().filter(|block| !block.starts_with("# children/")).collect();
    assert_eq!(mirrors.len(), 3);
    for block in mirrors {
        assert_eq!(told(block), Vec::<String>::new(), "{block}");
    }
}

#[test]
fn addresses_of_receivers_have_a_host_and_a_port() {
    for good in ["127.0.0.1:9091", "pump-house.example.org:1", "[::1]:65535", "pi_3:9091"] {
        assert!(is_host_and_port(good), "{good}");
    }
    for bad in
        ["", ":9091", "host", "host:", "host:0", "host:65536", "::1:9091", "[::1]", "[x]:1", "a b:1", "u@h:1", "h/x:1"]
    {
        assert!(!is_host_and_port(bad), "{bad}");
    }
}
