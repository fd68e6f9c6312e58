use super::*;
use crate::logic::nat::Nat;

fn cidrs(texts: &[&str]) -> Vec<Cidr> {
    texts.iter().map(|text| text.parse().expect("good")).collect()
}

fn fixed() -> Plan {
    Plan {
        interface: "eth0".into(),
        dhcp: false,
        addresses: cidrs(&["192.168.77.2/24", "10.0.0.2/8", "fd00::2/64"]),
        gateway: Some([192, 168, 77, 1].into()),
        gateway_v6: Some("fd00::1".parse().expect("good")),
        is_default_way: true,
        name_servers: vec!["192.168.77.1".parse().expect("good"), "fd00::1".parse().expect("good")],
        backend: None,
        nat: Nat::default(),
    }
}

fn dhcp() -> Plan {
    Plan { dhcp: true, addresses: Vec::new(), gateway: None, gateway_v6: None, name_servers: Vec::new(), ..fixed() }
}

#[test]
fn a_profile_of_network_manager() {
    let expected = "# Written by multus-lan; changes are lost. To remove it: multus-lan --undo\n\
        [connection]\nid=multus-lan\nuuid=6d756c74-7573-4c61-8e00-000000000001\ntype=ethernet\ninterface-name=eth0\n\
        autoconnect=true\nautoconnect-priority=100\n\n\
        [ipv4]\nmethod=manual\naddress1=192.168.77.2/24\naddress2=10.0.0.2/8\ngateway=192.168.77.1\ndns=192.168.77.1;\n\
        ignore-auto-dns=true\ndad-timeout=3000\n\n\
        [ipv6]\nmethod=manual\naddress1=fd00::2/64\ngateway=fd00::1\ndns=fd00::1;\nignore-auto-dns=true\n";
    assert_eq!(network_manager(&fixed()), expected);
    let text = network_manager(&Plan { is_default_way: false, ..dhcp() });
    assert!(
        text.ends_with(
            "[ipv4]\nmethod=auto\nnever-default=true\ndad-timeout=3000\n\n[ipv6]\nmethod=auto\nnever-default=true\n"
        ),
        "{text}"
    );
    let text = network_manager(&Plan { addresses: cidrs(&["fd00::2/64"]), gateway: None, ..fixed() });
    assert!(text.contains("[ipv4]\nmethod=disabled\n\n[ipv6]\nmethod=manual\n"), "{text}");
    // Where no router of IPv6 is named, those that advertise themselves are the way.
    let text = network_manager(&Plan { gateway_v6: None, ..fixed() });
    assert!(text.contains("[ipv6]\nmethod=auto\naddress1=fd00::2/64\ndns="), "{text}");
    let text = network_manager(&Plan { gateway_v6: None, is_default_way: false, ..fixed() });
    assert!(text.contains("[ipv6]\nmethod=manual\naddress1=fd00::2/64\nnever-default=true\n"), "{text}");
}

#[test]
fn a_file_of_networkd() {
    let expected = "# Written by multus-lan; changes are lost. To remove it: multus-lan --undo\n\
        [Match]\nName=eth0\n\n\
        [Network]\nDHCP=no\nGateway=192.168.77.1\nGateway=fd00::1\nDNS=192.168.77.1\nDNS=fd00::1\n\n\
        [Address]\nAddress=192.168.77.2/24\nDuplicateAddressDetection=ipv4\n\n\
        [Address]\nAddress=10.0.0.2/8\nDuplicateAddressDetection=ipv4\n\n\
        [Address]\nAddress=fd00::2/64\nDuplicateAddressDetection=ipv6\n\n\
        [IPv6AcceptRA]\nUseDNS=no\n";
    assert_eq!(networkd(&fixed()), expected);
    let text = networkd(&Plan { is_default_way: false, ..dhcp() });
    assert!(
        text.ends_with(
            "[Network]\nDHCP=ipv4\n\n[DHCPv4]\nClientIdentifier=mac\nUseGateway=no\n\n[IPv6AcceptRA]\nUseGateway=no\n"
        ),
        "{text}"
    );
}

#[test]
fn a_block_of_dhcpcd() {
    let one = Plan { addresses: cidrs(&["192.168.77.2/24", "fd00::2/64"]), gateway_v6: None, ..fixed() };
    let expected = "interface eth0\nstatic ip_address=192.168.77.2/24\nstatic ip6_address=fd00::2/64\n\
        static routers=192.168.77.1\nstatic domain_name_servers=192.168.77.1 fd00::1\n";
    assert_eq!(dhcpcd(&one).expect("good"), expected);
    assert_eq!(dhcpcd(&dhcp()).expect("good"), "interface eth0\n");
    assert_eq!(dhcpcd(&Plan { is_default_way: false, ..dhcp() }).expect("good"), "interface eth0\nnogateway\n");
    let two = Plan { gateway_v6: None, ..fixed() };
    assert!(dhcpcd(&two).expect_err("two addresses").contains("one IPv4 address"));
    let router = Plan { gateway_v6: fixed().gateway_v6, ..one };
    assert!(dhcpcd(&router).expect_err("it would be left out").contains("by their advertisements only"));
    assert!(dhcpcd(&Plan { is_default_way: false, ..router }).is_ok(), "no way to the world anyway");
}

#[test]
fn what_others_say_of_the_interface_is_found() {
    let others = "static domain_name_servers=9.9.9.9\ninterface wlan0\nstatic ip_address=10.0.0.2/8\n\
        interface eth0 # the LAN\n\tstatic ip_address=192.168.77.9/24\n#static routers=1.2.3.4\nmetric 200\n\
        static routers=192.168.77.1\ninterface eth01\nnoipv4\n";
    assert_eq!(foreign_lines(others, "eth0"), Ok(vec![5, 8]));
    assert_eq!(foreign_lines(others, "wlan0"), Ok(vec![3]));
    assert_eq!(foreign_lines(others, "eth1"), Ok(Vec::new()));
    let own = with_block("hostname\n", Some("interface eth0\nstatic ip_address=192.168.77.2/24\n")).expect("good");
    assert_eq!(foreign_lines(&own, "eth0"), Ok(Vec::new()), "our own");
    let behind = format!("{own}nogateway\ninterface eth1\nnogateway\n");
    assert_eq!(foreign_lines(&behind, "eth0"), Ok(vec![6]), "what is behind our block belongs to it");
    let open = with_block("hostname", Some("interface eth0\nnoipv4\n")).expect("good");
    assert_eq!(foreign_lines(&open, "eth0"), Ok(Vec::new()));
    assert!(foreign_lines(BEGIN, "eth0").is_err());
}

#[test]
fn what_others_wrote_stays_byte_for_byte() {
    for others in
        ["", "hostname\n", "hostname\n\n# BEGIN something else\noption x\n", "no end of line", "\r\n\u{fc}\t \n"]
    {
        let with = with_block(others, Some("interface eth0\n")).expect("good");
        assert_eq!(block_of(&with).expect("good").as_deref(), Some("interface eth0\n"));
        let other = with_block(&with, Some("interface eth1\n")).expect("good");
        assert_eq!(block_of(&other).expect("good").as_deref(), Some("interface eth1\n"));
        let without = with_block(&other, None).expect("good");
        assert_eq!(without, others);
        assert_eq!(with_block(&without, None).expect("good"), without);
    }
    let around = format!("a\n{BEGIN}\nx\n{END}\nb\n");
    assert_eq!(
        with_block(&around, Some("y\n")).expect("good"),
        format!("a\n{BEGIN}\ny\n{END}\nb\n"),
        "it keeps its place"
    );
    assert_eq!(with_block(&around, None).expect("good"), "a\nb\n");
}

#[test]
fn damaged_markers_are_not_guessed_at() {
    for text in [
        format!("{BEGIN}\n"),
        format!("{END}\n"),
        format!("{END}\n{BEGIN}\n"),
        format!("{BEGIN}\n{BEGIN}\n{END}\n"),
        format!("{BEGIN}\n{END}\n{BEGIN}\n{END}\n"),
    ] {
        assert!(with_block(&text, None).is_err() && block_of(&text).is_err(), "{text}");
    }
}

#[test]
fn both_dhcp_clients_are_understood() {
    let lease = Lease {
        cidr: "192.168.77.50/24".parse().expect("good"),
        routers: vec![[192, 168, 77, 1].into()],
        name_servers: cidrs(&["192.168.77.1/32", "9.9.9.9/32"]).iter().map(|cidr| cidr.address).collect(),
        lease_s: Some(120),
        server: "192.168.77.1".into(),
    };
    let from = |pairs: &'static [(&'static str, &'static str)]| {
        move |name: &str| pairs.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
    };
    let udhcpc = from(&[
        ("ip", "192.168.77.50"),
        ("mask", "24"),
        ("subnet", "255.255.255.0"),
        ("router", "192.168.77.1"),
        ("dns", "192.168.77.1 9.9.9.9"),
        ("lease", "120"),
        ("serverid", "192.168.77.1"),
    ]);
    assert_eq!(lease_notice(Some("bound"), udhcpc), Notice::Bound(lease.clone()));
    assert_eq!(lease_notice(Some("deconfig"), udhcpc), Notice::Lost);
    let dhclient = from(&[
        ("reason", "RENEW"),
        ("new_ip_address", "192.168.77.50"),
        ("new_subnet_mask", "255.255.255.0"),
        ("new_routers", "192.168.77.1"),
        ("new_domain_name_servers", "192.168.77.1 9.9.9.9"),
        ("new_dhcp_lease_time", "120"),
        ("new_dhcp_server_identifier", "192.168.77.1"),
    ]);
    assert_eq!(lease_notice(None, dhclient), Notice::Bound(lease));
    assert_eq!(lease_notice(None, from(&[("reason", "PREINIT")])), Notice::Other("PREINIT".into()));
    assert!(matches!(lease_notice(Some("bound"), from(&[("ip", "a.b")])), Notice::Other(_)), "nonsense is no lease");
    assert!(matches!(lease_notice(None, |_| None), Notice::Other(_)));
}
