use super::*;

fn map(config: &Config) -> Result<Map, Vec<String>> {
    let mut wrong = Vec::new();
    let map = Map::new(config, &mut wrong);
    if wrong.is_empty() { Ok(map) } else { Err(wrong) }
}

fn names(lines: &[&str]) -> Vec<String> {
    lines.iter().map(|name| (*name).to_owned()).collect()
}

#[test]
fn the_map_of_the_original_ends_where_it_ends() {
    let map = map(&Config::default()).expect("good");
    let count = |table, address, count| map.words(table, address, count).map(Iterator::count);
    for table in [Registers::Inputs, Registers::Holding] {
        for (address, registers, expected) in [
            (0, 8, Ok(8)),
            (7, 1, Ok(1)),
            (0, 9, Err(Exception::IllegalAddress)),
            (8, 1, Err(Exception::IllegalAddress)),
            (9, 2, Err(Exception::IllegalAddress)),
            (10, 8, Ok(8)),
            (17, 1, Ok(1)),
            (17, 2, Err(Exception::IllegalAddress)),
            (65535, 1, Err(Exception::IllegalAddress)),
            (65535, 125, Err(Exception::IllegalAddress)),
        ] {
            assert_eq!(count(table, address, registers), expected, "{registers} at {address}");
        }
    }
    assert_eq!(map.bits(Bits::Coils, 0, 8).map(Iterator::count), Ok(8));
    assert!(map.bits(Bits::Coils, 0, 9).is_err() && map.bits(Bits::Inputs, 65535, 2000).is_err());
    let writes = map.write_coils(6, [true, false].into_iter()).expect("writable");
    let lines: Vec<_> = writes.lines.iter().map(|(line, value)| (&*map.lines[*line].name, *value)).collect();
    assert_eq!(lines, [("DO7", 0.0), ("DO8", 1.0)], "1 is the high level, which is off");
    assert_eq!(map.write_words(10, &[1]), Err(Exception::IllegalAddress), "only read back");
    assert_eq!(map.write_words(0, &[1]), Err(Exception::IllegalAddress));
}

#[test]
fn numbers_are_written_whole_or_not_at_all() {
    let analogue = |address, format, order| Block {
        tables: vec![Table::HoldingRegisters],
        address,
        lines: names(&["AO1", "AO2"]),
        writable: Some(true),
        format,
        word_order: order,
        scale: 10.0,
        offset: 5.0,
        ..Block::default()
    };
    let mut config = Config {
        map: vec![
            analogue(0, Format::I16, WordOrder::HighFirst),
            analogue(10, Format::F32, WordOrder::LowFirst),
            analogue(65532, Format::U32, WordOrder::HighFirst),
        ],
        ..Config::default()
    };
    config.watchdog.enabled = true;
    config.watchdog.address = 2;
    let map = map(&config).expect("good");
    let written = |address, values: &[u16]| map.write_words(address, values);
    assert_eq!(written(0, &[25, 0xffff, 7]), Ok(Writes { lines: vec![(0, 2.0), (1, -0.6)], watchdog: Some(7) }));
    assert_eq!(written(10, &[0, 0x41bc]).map(|writes| writes.lines), Ok(vec![(0, 1.85)]));
    assert_eq!(written(65532, &[0, 15, 0, 25]).map(|writes| writes.lines), Ok(vec![(0, 1.0), (1, 2.0)]));
    for (address, values) in [(10, &[0][..]), (11, &[0, 0]), (12, &[0]), (11, &[0]), (65535, &[1]), (65535, &[0, 0])] {
        assert_eq!(written(address, values), Err(Exception::IllegalAddress), "{values:?} at {address}");
    }
    assert!(map.lines.iter().all(|line| line.guarded && line.written && !line.digital));
}

#[test]
fn counters_count_edges() {
    let point = |shows, inverted| Point {
        line: 0,
        shows,
        format: Format::U32,
        order: WordOrder::HighFirst,
        inverted,
        scale: 1.0,
        offset: 0.0,
        writable: false,
    };
    let words = |number: u32| Some([(number >> 16) as u16, (number & 0xffff) as u16]);
    let shown = |shows, inverted, value, changes| point(shows, inverted).registers(value, changes);
    for (changes, value, rising, falling) in [
        (0, 0.0, 0, 0),
        (1, 1.0, 1, 0),
        (2, 0.0, 1, 1),
        (65_537, 1.0, 32_769, 32_768),
        // A line that began at 1.
        (0, 1.0, 0, 0),
        (1, 0.0, 0, 1),
        (2, 1.0, 1, 1),
        (3, 0.0, 1, 2),
    ] {
        assert_eq!(shown(Shows::Edges, false, value, changes), words(changes as u32));
        assert_eq!(shown(Shows::RisingEdges, false, value, changes), words(rising), "{changes} changes to {value}");
        assert_eq!(shown(Shows::RisingEdges, true, value, changes), words(falling), "inverted");
    }
}

#[test]
fn what_does_not_fit_together_is_told() {
    let block = Block { tables: vec![Table::Coils], lines: names(&["DO1", "DO2"]), ..Block::default() };
    let with = |change: fn(&mut Block)| {
        let mut block = block.clone();
        change(&mut block);
        Config { map: vec![block], ..Config::default() }
    };
    for (config, expected) in [
        (with(|b| b.tables.clear()), "map[0].tables: where the lines stand"),
        (with(|b| b.lines.clear()), "map[0].lines: names of lines are missing"),
        (with(|b| b.address = 65535), "map[0].address: goes beyond address 65535"),
        (with(|b| b.tables.push(Table::Coils)), "map[0].address: something stands at"),
        (with(|b| b.scale = 0.0), "map[0].scale"),
        (with(|b| b.scale = f64::NAN), "map[0].scale"),
        (with(|b| b.shows = Shows::Edges), "map[0].shows: counters stand in registers"),
        (with(|b| (b.inverted, b.scale) = (true, 2.0)), "map[0].inverted"),
        (with(|b| (b.tables, b.writable) = (vec![Table::InputRegisters], Some(true))), "map[0].writable: only coils"),
    ] {
        let wrong = map(&config).expect_err(expected);
        assert!(wrong.len() == 1 && wrong[0].contains(expected), "{expected}: {wrong:?}");
    }
    let mut config = Config::default();
    config.watchdog.enabled = true;
    config.watchdog.address = 17;
    config.watchdog.outputs = names(&["DI1"]);
    config.diagnostics.enabled = true;
    config.diagnostics.address = 65530;
    let wrong = map(&config).expect_err("bad").join("\n");
    for expected in ["watchdog.address: something", "diagnostics.address: goes beyond", "watchdog.outputs[0]: \"DI1\""]
    {
        assert!(wrong.contains(expected), "{expected} is missing in {wrong}");
    }
}
