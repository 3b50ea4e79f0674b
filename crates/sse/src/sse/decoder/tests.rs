use super::*;
use proptest::prelude::*;

fn decode(chunks: &[&[u8]]) -> Vec<Item> {
    let (items, failed) = decode_within(Limits::default(), chunks);
    assert_eq!(failed, None);
    items
}

fn decode_within(limits: Limits, chunks: &[&[u8]]) -> (Vec<Item>, Option<DecodeError>) {
    let mut decoder = Decoder::new(limits);
    let mut items = Vec::new();
    for chunk in chunks {
        decoder.push(Bytes::copy_from_slice(chunk));
        loop {
            match decoder.next_item() {
                Ok(Some(item)) => items.push(item),
                Ok(None) => break,
                Err(error) => return (items, Some(error)),
            }
        }
    }
    (items, None)
}

/// Whole, byte by byte, and at every split into two: always the same items.
fn items(input: &[u8]) -> Vec<Item> {
    let whole = decode(&[input]);
    let bytes: Vec<&[u8]> = input.chunks(1).collect();
    assert_eq!(decode(&bytes), whole, "byte by byte: {input:?}");
    for at in 0..=input.len() {
        let (first, second) = input.split_at(at);
        assert_eq!(decode(&[first, second]), whole, "split at {at}: {input:?}");
    }
    whole
}

fn events(input: &[u8]) -> Vec<Event> {
    let events = items(input).into_iter().filter_map(|item| match item {
        Item::Event(event) => Some(event),
        _ => None,
    });
    events.collect()
}

fn data(input: &[u8]) -> Vec<String> {
    let text = |event: Event| String::from_utf8(event.data.to_vec()).unwrap();
    events(input).into_iter().map(text).collect()
}

fn retries(input: &[u8]) -> Vec<u64> {
    let retries = items(input).into_iter().filter_map(|item| match item {
        Item::Retry(time) => Some(u64::try_from(time.as_millis()).unwrap()),
        _ => None,
    });
    retries.collect()
}

#[test]
fn fields_of_any_line_end_make_one_event() {
    let long = "x".repeat(2000);
    let input =
        format!("data:1\r:\0\n:\r\ndata:2\n:{long}\rdata:3\n:data:fail\r:{long}\ndata:4\n\n");
    assert_eq!(data(input.as_bytes()), ["1\n2\n3\n4"]);
}

#[test]
fn one_bom_is_removed_at_the_start_only() {
    let bom = "\u{FEFF}";
    assert_eq!(
        data(format!("{bom}data:1\n\n{bom}data:2\n\ndata:3\n\n").as_bytes()),
        ["1", "3"]
    );
    assert_eq!(
        data(format!("{bom}{bom}data:1\n\ndata:2\n\ndata:3\n\n").as_bytes()),
        ["2", "3"]
    );
    assert_eq!(data(format!("{bom}\ndata:1\n\n").as_bytes()), ["1"]);
}

#[test]
fn empty_data_is_data() {
    assert_eq!(
        data(b"data:\n\ndata\ndata\n\ndata:test\n\n"),
        ["", "\n", "test"]
    );
}

#[test]
fn names_match_exactly() {
    let input = b"data:\0\ndata:  2\rData:1\ndata\0:2\ndata:1\r\0data:4\nda-ta:3\rdata_5\ndata:3\rdata:\r\n data:32\ndata:4\n\n";
    assert_eq!(data(input), ["\0\n 2\n1\n3\n\n4"]);
}

#[test]
fn a_cr_ends_its_line_at_once() {
    assert_eq!(
        data(b"data:test\r\ndata\ndata:test\r\n\r"),
        ["test\n\ntest"]
    );
}

#[test]
fn unknown_fields_are_skipped() {
    let input = b"data:test\n data\ndata\nfoobar:xxx\njustsometext\n:x\ndata:test\n\n";
    assert_eq!(data(input), ["test\n\ntest"]);
}

#[test]
fn reconnection_times_are_digits_only() {
    assert_eq!(retries(b"retry:03000\n\n"), [3000]);
    assert_eq!(retries(b"retry:3000\nretry:1000x\n\n"), [3000]);
    assert_eq!(
        retries(b"retry:+5\nretry:-5\nretry:1.5\nretry:5 \nretry\nretry:\n"),
        [0; 0]
    );
    assert_eq!(retries(b"retry: 7\n"), [7], "before the block is finished");
    assert_eq!(retries(b"retry:99999999999999999999999\n"), [u64::MAX]);
}

#[test]
fn ids_with_nul_are_ignored() {
    for bad in [
        &b"id:\0\0\ndata\n\n"[..],
        b"id:x\0\ndata\n\n",
        b"id:\0x\ndata\n\n",
    ] {
        assert_eq!(events(bad)[0].id, None);
    }
}

#[test]
fn an_id_is_told_with_its_block() {
    let mut decoder = Decoder::default();
    let mut feed = |input: &'static [u8]| {
        decoder.push(Bytes::from_static(input));
        decoder.next_item().unwrap()
    };
    assert_eq!(feed(b"id:2\n"), None, "the block is not finished");
    let only = |id| Some(Item::IdOnly(Bytes::from_static(id)));
    assert_eq!(feed(b"\n"), only(b"2"));
    assert_eq!(feed(b"id:3\nid\n\n"), only(b""), "an empty one resets");
}

#[test]
fn an_events_id_is_the_one_in_its_own_block() {
    let events = events(b"id:1\ndata:a\n\ndata:a\n\nid:2\n\ndata:a\n\n");
    let ids: Vec<_> = events.iter().map(|event| event.id.as_deref()).collect();
    assert_eq!(ids, [Some(&b"1"[..]), None, None]);
}

#[test]
fn a_block_with_only_an_id_is_told() {
    assert_eq!(items(b"id:7\n\n"), [Item::IdOnly(Bytes::from_static(b"7"))]);
    let priming = &events(b"id:7\ndata:\n\n")[0];
    assert!(priming.data.is_empty() && priming.id.as_deref() == Some(b"7"));
}

#[test]
fn an_unfinished_block_is_no_event() {
    assert_eq!(items(b"id:1\ndata:x\n"), []);
    assert_eq!(items(b"data:x"), []);
}

#[test]
fn bad_utf8_is_replaced() {
    assert_eq!(
        data(b"data:a\xffb\n\ndata:\xe2\x82\n\n"),
        ["a\u{FFFD}b", "\u{FFFD}"]
    );
    assert_eq!(
        data("data:€\u{85}\u{2028}\u{b}\u{c}\n\n".as_bytes()),
        ["€\u{85}\u{2028}\u{b}\u{c}"]
    );
}

#[test]
fn a_single_line_event_in_one_chunk_is_not_copied() {
    for input in [
        "data: {\"a\":1}\n\n",
        "\u{FEFF}data:{\"a\":1}\r\n\r\n",
        "id: 1\nevent: message\ndata: {\"a\":1}\n\n",
        "data: {\"a\":1}\rid: 1\r\r",
    ] {
        let chunk = Bytes::from(input);
        let mut decoder = Decoder::default();
        decoder.push(chunk.clone());
        let Some(Item::Event(event)) = decoder.next_item().unwrap() else {
            panic!("no event")
        };
        assert_eq!(event.data, "{\"a\":1}");
        assert!(chunk.as_ptr_range().contains(&event.data.as_ptr()));
        assert_eq!(decoder.next_item(), Ok(None));
    }
}

#[test]
fn chunks_may_wait() {
    let mut decoder = Decoder::default();
    for chunk in ["data:1\n\nda", "ta:", "2\r", "\n\r\n"] {
        decoder.push(Bytes::from(chunk));
    }
    let mut data = Vec::new();
    while let Some(Item::Event(event)) = decoder.next_item().unwrap() {
        data.push(event.data);
    }
    assert_eq!(data, ["1", "2"]);
}

#[test]
fn limits_hold_and_stay() {
    let limits = Limits {
        event: 10,
        line: 20,
    };
    let fails = |chunks: &[&[u8]]| {
        let mut decoder = Decoder::new(limits);
        for chunk in chunks {
            decoder.push(Bytes::copy_from_slice(chunk));
            loop {
                match decoder.next_item() {
                    Ok(Some(_)) => {}
                    Ok(None) => break,
                    Err(error) => {
                        assert_eq!(decoder.next_item(), Err(error));
                        return Some(error);
                    }
                }
            }
            assert!(decoder.held() <= 40);
        }
        None
    };
    let event = Some(DecodeError::EventTooLarge { limit: 10 });
    let line = Some(DecodeError::LineTooLarge { limit: 20 });
    assert_eq!(fails(&[b"data: 0123456789\n\n"]), None);
    assert_eq!(fails(&[b"data: 0123456789a\n\n"]), event);
    assert_eq!(fails(&[b"data: 01234", b"56789", b"abcdefghi"]), event);
    assert_eq!(fails(&["\u{FEFF}data: 0123456789\n\n".as_bytes()]), None);
    assert_eq!(
        fails(&[b"\xEF\xBB", b"\xBFdata: 0123456789", b"\n\n"]),
        None
    );
    assert_eq!(fails(&[b"data:01234\ndata:56789\n"]), event);
    assert_eq!(fails(&[&[b'x'; 21]]), line);
    assert_eq!(fails(&[b":01234567890123456789\n"]), line);
    assert_eq!(fails(&[&[b':'; 12], &[b':'; 12]]), line);
}

proptest! {
    #[test]
    fn chunking_makes_no_difference(
        input in proptest::collection::vec(
            prop_oneof![
                Just(&b"data:"[..]), Just(&b"data"[..]), Just(&b"id:"[..]), Just(&b"retry:"[..]),
                Just(&b"event: "[..]), Just(&b"\n"[..]), Just(&b"\r"[..]), Just(&b"\r\n"[..]),
                Just(&b"x"[..]), Just(&b"12"[..]), Just(&b":"[..]), Just(&b" "[..]),
                Just(&b"\0"[..]), Just(&b"\xEF\xBB\xBF"[..]), Just(&b"\xE2\x82"[..]),
                Just(&b"data: 12\n\n"[..]), Just(&b"data:12\r\n\r\n"[..]), Just(&b"data:1\r\r"[..]),
            ],
            0..40,
        ),
        event in prop_oneof![Just(10_usize), Just(20), Just(1000)],
        cuts in proptest::collection::vec(1_usize..9, 0..20),
    ) {
        let input = input.concat();
        let mut chunks = Vec::new();
        let mut rest = &input[..];
        for cut in cuts {
            let (chunk, tail) = rest.split_at(cut.min(rest.len()));
            chunks.push(chunk);
            rest = tail;
        }
        chunks.push(rest);
        let limits = Limits { event, line: 20 };
        prop_assert_eq!(decode_within(limits, &chunks), decode_within(limits, &[&input]));
    }

    #[test]
    fn no_input_panics(input: Vec<u8>) {
        decode(&[&input]);
    }
}

#[test]
fn an_event_that_has_begun_is_held_with_all_its_fields() {
    for (text, held) in [
        ("id: 12345\n", 5),
        ("event: message\n", 7),
        ("event: other\n", 5),
        ("id: 12345\nevent: other\n", 10),
        ("id: 12345\ndata: abc\n", 8),
        ("id: 12345\ndata: abc\ndata: d", 5 + 3 + 7),
        (": comment\n", 0),
        ("id: 12345\n\n", 0),
        ("event: other\n\n", 0),
        ("id: 12345\nevent: other\ndata: abc\n\n", 0),
    ] {
        let mut decoder = Decoder::new(Limits::default());
        decoder.push(Bytes::from_static(text.as_bytes()));
        while decoder.next_item().unwrap().is_some() {}
        assert_eq!(decoder.held(), held, "{text:?}");
    }
}
