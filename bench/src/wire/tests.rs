use super::*;

fn events(chunks: &[&str]) -> Vec<String> {
    let mut reader = EventReader::default();
    let mut seen = Vec::new();
    for chunk in chunks {
        let fed: Result<(), ()> = reader.feed(chunk.as_bytes(), |data| {
            seen.push(String::from_utf8_lossy(data).into_owned());
            Ok(())
        });
        assert_eq!(fed, Ok(()));
    }
    seen
}

#[test]
fn events_survive_any_split() {
    let text = "id: 1\ndata:\nretry: 1000\n\n: ping\n\nevent: message\r\ndata: a\r\ndata:b\r\n\r\ndata: c\n\n";
    for split in 0..=text.len() {
        let (before, after) = text.split_at(split);
        assert_eq!(events(&[before, after]), ["a\nb", "c"], "split at {split}");
    }
}

#[test]
fn an_unfinished_event_is_none() {
    assert!(events(&["data: a\n"]).is_empty());
}

fn raw(id: u64) -> Box<RawValue> {
    RawValue::from_string(id.to_string()).unwrap()
}

#[test]
fn the_right_answer_passes() {
    let mut check = AnswerCheck::new(7, Tool::Burst, "n");
    for n in 1..=BURST_EVENTS {
        check.message(progress(&raw(7), n).as_bytes()).unwrap();
    }
    check.message(tool_result(&raw(7), "n").as_bytes()).unwrap();
    assert_eq!(check.finish().unwrap(), "n");
}

#[test]
fn wrong_answers_are_found() {
    let call = |tool| AnswerCheck::new(7, tool, "n");
    let right = tool_result(&raw(7), "n");

    assert!(call(Tool::Json).finish().is_err(), "no answer");
    assert!(
        call(Tool::Json)
            .message(tool_result(&raw(8), "n").as_bytes())
            .is_err(),
        "id"
    );
    assert!(
        call(Tool::Json)
            .message(tool_result(&raw(7), "m").as_bytes())
            .is_err(),
        "nonce"
    );
    assert!(
        call(Tool::Json)
            .message(error("7", -32603, "x").as_bytes())
            .is_err(),
        "error"
    );
    assert!(
        call(Tool::Json)
            .message(progress(&raw(7), 1).as_bytes())
            .is_err(),
        "no progress due"
    );
    assert!(
        call(Tool::Burst).message(right.as_bytes()).is_err(),
        "progress lost"
    );
    assert!(
        call(Tool::Burst)
            .message(progress(&raw(7), 2).as_bytes())
            .is_err(),
        "out of order"
    );
    assert!(
        call(Tool::Burst)
            .message(progress(&raw(8), 1).as_bytes())
            .is_err(),
        "token"
    );

    let mut twice = call(Tool::Json);
    twice.message(right.as_bytes()).unwrap();
    assert!(twice.message(right.as_bytes()).is_err(), "answered twice");
}

#[test]
fn a_standalone_stream_is_its_own_and_complete() {
    let mut check = StandaloneCheck::new(3);
    check.message(standalone(3, 1).as_bytes()).unwrap();
    check.message(standalone(3, 2).as_bytes()).unwrap();
    assert!(
        check.message(standalone(3, 2).as_bytes()).is_err(),
        "doubled"
    );
    assert!(check.message(standalone(3, 4).as_bytes()).is_err(), "lost");
    assert!(
        check.message(standalone(4, 3).as_bytes()).is_err(),
        "foreign"
    );
}
