use super::*;

#[test]
fn versions_are_ordered_as_their_dates() {
    let names: Vec<_> = ProtocolVersion::ALL.iter().map(|v| v.as_str()).collect();
    assert!(names.is_sorted() && ProtocolVersion::ALL.is_sorted());
    assert!(
        names
            .iter()
            .all(|name| name.parse::<ProtocolVersion>().is_ok())
    );
    assert!("2025-06-18 ".parse::<ProtocolVersion>().is_err());
}

#[test]
fn a_handshake_goes_one_way_only() {
    let policy = VersionPolicy::default();
    let mut leg = LegVersion::default();
    assert!(leg.negotiate("2025-06-18", &policy).is_err());
    assert!(leg.validate(None).is_err());
    leg.request("2025-11-25").unwrap();
    assert!(leg.request("2025-11-25").is_err());
    assert_eq!(
        leg.negotiate("2025-06-18", &policy),
        Ok(ProtocolVersion::V2025_06_18)
    );
    assert!(leg.request("2025-06-18").is_err(), "no renegotiation");
    assert!(leg.negotiate("2025-06-18", &policy).is_err());
    assert!(leg.validate(Some(ProtocolVersion::V2025_11_25)).is_err());
    assert_eq!(leg.validate(Some(ProtocolVersion::V2025_06_18)), Ok(()));
    assert_eq!(leg.validate(None), Ok(()));
}

#[test]
fn a_server_cannot_take_the_session_below_the_minimum_or_off_the_pin() {
    let version = Some(ProtocolVersion::V2025_06_18);
    let policy = |min, pin| VersionPolicy { min, pin };
    for (policy, answered, accepted) in [
        (policy(version, None), "2025-03-26", false),
        (policy(version, None), "2025-06-18", true),
        (policy(None, version), "2025-11-25", false),
        (policy(None, version), "2025-06-18", true),
        (VersionPolicy::default(), "2026-07-28", false),
        (VersionPolicy::default(), "1999-01-01", false),
    ] {
        let mut leg = LegVersion::default();
        leg.request("2025-11-25").unwrap();
        let taken = leg.negotiate(answered, &policy).is_ok();
        assert_eq!(taken, accepted, "{answered}");
    }
}

#[test]
fn a_refusal_names_what_would_have_been_accepted() {
    let mut leg = LegVersion::default();
    leg.request("2025-11-25").unwrap();
    let policy = VersionPolicy {
        min: Some(ProtocolVersion::V2025_11_25),
        pin: None,
    };
    let error = leg.negotiate("2024-11-05", &policy).unwrap_err();
    let response = error.to_response(&RequestId::Integer(1));
    let text = std::str::from_utf8(response.raw()).unwrap();
    assert!(text.contains(r#""code":-32602"#), "{text}");
    assert!(text.contains("(--min-version 2025-11-25)"), "{text}");
    assert!(
        text.contains(r#"{"supported":["2025-11-25"],"requested":"2025-11-25"}"#),
        "{text}"
    );
}

#[test]
fn a_refusal_names_the_option_that_leaves_no_more() {
    let policy = |min: Option<&str>, pin: Option<&str>| {
        let version = |text: &str| text.parse().unwrap();
        let (min, pin) = (min.map(version), pin.map(version));
        VersionPolicy { min, pin }
    };
    let legacy = "2025-11-25, 2025-06-18, 2025-03-26, 2024-11-05";
    for (policy, era, told) in [
        (policy(None, None), Era::Legacy, legacy),
        (policy(None, None), Era::Modern, "2026-07-28"),
        (
            policy(Some("2025-06-18"), None),
            Era::Legacy,
            "2025-11-25, 2025-06-18 (--min-version 2025-06-18)",
        ),
        (
            policy(None, Some("2025-06-18")),
            Era::Modern,
            "2025-06-18 (--pin 2025-06-18)",
        ),
        (
            policy(Some("2025-03-26"), Some("2025-06-18")),
            Era::Legacy,
            "2025-06-18 (--pin 2025-06-18)",
        ),
        (
            policy(Some("2026-07-28"), None),
            Era::Legacy,
            "2026-07-28 (--min-version 2026-07-28)",
        ),
        // These leave all of the era.
        (policy(Some("2025-06-18"), None), Era::Modern, "2026-07-28"),
        (policy(Some("2024-11-05"), None), Era::Legacy, legacy),
    ] {
        assert_eq!(policy.served(era).to_string(), told, "{policy:?}");
    }
}
