//! The table, row by row.

use super::*;
use Decision::{DropCursor, Fail, Park, SendAgain, SessionLost};
use Executed::{No, Unknown};
use FaultKind as F;

const BACK: Decision = Decision::Return {
    floor: Duration::ZERO,
    hint: None,
};
const CURSOR: Facts = Facts {
    cursor: true,
    repeated: false,
};
const PLAIN: Facts = Facts {
    cursor: false,
    repeated: false,
};
const REPEATED: Facts = Facts {
    cursor: false,
    repeated: true,
};

#[track_caller]
fn expect(trouble: Trouble, facts: Facts, cells: [Decision; 3]) {
    for (leg, cell) in [Leg::Post, Leg::Resume, Leg::Standing]
        .into_iter()
        .zip(cells)
    {
        assert_eq!(
            classify(&trouble, leg, facts),
            cell,
            "{trouble:?} of {leg:?}"
        );
    }
}

fn refusal(status: u16) -> Refusal {
    let status = StatusCode::from_u16(status).unwrap();
    Refusal::new(status, &HeaderMap::new(), SystemTime::UNIX_EPOCH)
}

fn status(code: u16) -> Trouble {
    Trouble::Refused(refusal(code))
}

fn after(code: u16, seconds: u64) -> Trouble {
    Trouble::Refused(Refusal {
        retry_after: Some(Duration::from_secs(seconds)),
        ..refusal(code)
    })
}

fn wait(seconds: u64, origin_wide: bool) -> Decision {
    let hint = Hint {
        wait: Duration::from_secs(seconds),
        origin_wide,
    };
    Decision::Return {
        floor: Duration::ZERO,
        hint: Some(hint),
    }
}

#[test]
fn an_end_with_a_cursor() {
    for trouble in [Trouble::Ended, Trouble::Reset, Trouble::Silent] {
        expect(trouble, CURSOR, [BACK, BACK, BACK]);
    }
}

#[test]
fn an_end_without_a_cursor() {
    let over = Fail(F::StreamEnded, Unknown);
    for trouble in [Trouble::Ended, Trouble::Reset, Trouble::Silent] {
        expect(trouble, PLAIN, [over, over, BACK]);
    }
}

#[test]
fn a_handshake_that_was_refused() {
    let fail = Fail(F::BadResponse, Unknown);
    let bare = Trouble::NoSession { retry_after: None };
    expect(bare, PLAIN, [fail, fail, BACK]);
    expect(bare, REPEATED, [fail, fail, BACK]);
    let retry_after = Some(Duration::from_secs(7));
    let asked = Trouble::NoSession { retry_after };
    expect(asked, PLAIN, [fail, fail, wait(7, false)]);
}

#[test]
fn no_connection() {
    let again = SendAgain {
        hint: None,
        or: F::Connect,
    };
    expect(Trouble::NoConnection, PLAIN, [again, BACK, BACK]);
}

#[test]
fn certainly_not_processed() {
    let again = SendAgain {
        hint: None,
        or: F::ConnectionLost,
    };
    expect(Trouble::NotProcessed, PLAIN, [again, BACK, BACK]);
}

#[test]
fn too_many_requests() {
    let again = SendAgain {
        hint: None,
        or: F::RateLimited,
    };
    expect(status(429), PLAIN, [again, BACK, BACK]);
    let hint = Some(Hint {
        wait: Duration::from_secs(3),
        origin_wide: false,
    });
    let again = SendAgain {
        hint,
        or: F::RateLimited,
    };
    expect(
        after(429, 3),
        PLAIN,
        [again, wait(3, false), wait(3, false)],
    );
}

#[test]
fn unavailable_with_retry_after_holds_the_origin() {
    let hint = Some(Hint {
        wait: Duration::from_secs(3),
        origin_wide: true,
    });
    let again = SendAgain {
        hint,
        or: F::RateLimited,
    };
    expect(after(503, 3), CURSOR, [again, wait(3, true), wait(3, true)]);
}

#[test]
fn server_errors_and_the_two_that_are_like_them() {
    for code in [503, 500, 502, 504, 408, 425, 507, 599] {
        expect(status(code), CURSOR, [Fail(F::Status, Unknown), BACK, BACK]);
    }
}

#[test]
fn other_client_errors() {
    for code in [400, 402, 406, 418, 422, 499] {
        let fail = Fail(F::Status, Unknown);
        expect(status(code), PLAIN, [fail, fail, Park(Parking::Refused)]);
    }
}

/// What nobody takes was not executed.
#[test]
fn a_message_that_nobody_takes() {
    for code in [404, 410, 413, 414, 415, 421, 431] {
        let (post, resume) = (Fail(F::Status, No), Fail(F::Status, Unknown));
        expect(status(code), PLAIN, [post, resume, Park(Parking::Refused)]);
    }
}

#[test]
fn reset_or_timeout_before_the_head() {
    expect(
        Trouble::NoHead,
        CURSOR,
        [Fail(F::ConnectionLost, Unknown), BACK, BACK],
    );
}

#[test]
fn challenges() {
    for code in [401, 403] {
        expect(
            status(code),
            CURSOR,
            [
                Fail(F::Unauthorized, No),
                Fail(F::Unauthorized, Unknown),
                Park(Parking::Challenged),
            ],
        );
    }
}

#[test]
fn a_lost_session() {
    let lost = [SessionLost; 3];
    expect(
        Trouble::Refused(refusal(404).in_session(false)),
        CURSOR,
        lost,
    );
    expect(
        Trouble::Refused(refusal(400).in_session(true)),
        CURSOR,
        lost,
    );
}

#[test]
fn a_404_without_a_session_is_no_lost_session() {
    let (post, resume) = (Fail(F::Status, No), Fail(F::Status, Unknown));
    expect(status(404), CURSOR, [post, resume, Park(Parking::Refused)]);
}

#[test]
fn a_rejected_cursor() {
    let cells = [
        Fail(F::Status, Unknown),
        Fail(F::CursorRejected, Unknown),
        DropCursor,
    ];
    expect(status(400), CURSOR, cells);
    expect(
        Trouble::Refused(refusal(400).in_session(false)),
        CURSOR,
        cells,
    );
}

#[test]
fn method_not_allowed() {
    expect(
        status(405),
        CURSOR,
        [
            Fail(F::Status, No),
            Fail(F::NotResumable, Unknown),
            Park(Parking::NotOffered),
        ],
    );
}

#[test]
fn a_conflict() {
    let slow = Decision::Return {
        floor: Duration::from_secs(5),
        hint: None,
    };
    expect(status(409), CURSOR, [Fail(F::Status, Unknown), slow, slow]);
}

#[test]
fn no_content() {
    let fail = Fail(F::Status, Unknown);
    expect(status(204), CURSOR, [fail, fail, Park(Parking::Refused)]);
}

#[test]
fn a_wrong_content_type() {
    let fail = Fail(F::ContentType, Unknown);
    expect(Trouble::WrongType, PLAIN, [fail, BACK, BACK]);
    let parked = Park(Parking::WrongType);
    expect(Trouble::WrongType, REPEATED, [fail, BACK, parked]);
}

#[test]
fn no_answer_and_half_an_answer() {
    let parked = Park(Parking::WrongType);
    for (trouble, kind) in [
        (Trouble::NoAnswer, F::ContentType),
        (Trouble::Truncated, F::ConnectionLost),
        (Trouble::NoResponse, F::BadResponse),
    ] {
        let fail = Fail(kind, Unknown);
        expect(trouble, PLAIN, [fail, fail, BACK]);
        expect(trouble, REPEATED, [fail, fail, parked]);
    }
}

#[test]
fn a_certificate_error() {
    let cells = [
        Fail(F::Tls, No),
        Fail(F::Tls, Unknown),
        Park(Parking::Unreachable),
    ];
    expect(Trouble::Tls, CURSOR, cells);
}

#[test]
fn not_implemented_and_version_not_supported() {
    let fail = Fail(F::Status, Unknown);
    for code in [501, 505] {
        let cells = [fail, fail, Park(Parking::Unreachable)];
        expect(status(code), CURSOR, cells);
    }
}

#[test]
fn redirects() {
    for code in [307, 308] {
        let code = StatusCode::from_u16(code).unwrap();
        assert!(may_follow(code, Leg::Post) && may_follow(code, Leg::Resume));
    }
    for code in [301, 302, 303] {
        let code = StatusCode::from_u16(code).unwrap();
        assert!(!may_follow(code, Leg::Post));
        assert!(may_follow(code, Leg::Resume) && may_follow(code, Leg::Standing));
    }
    for code in [300, 304, 305, 200] {
        assert!(!may_follow(
            StatusCode::from_u16(code).unwrap(),
            Leg::Standing
        ));
    }
    let elsewhere = [301, 302, 303].map(|code| (code, Unknown));
    for (code, executed) in elsewhere.into_iter().chain([(307, No), (308, No)]) {
        let cells = [
            Fail(F::Redirect, executed),
            Fail(F::Redirect, Unknown),
            Park(Parking::Unreachable),
        ];
        let code = StatusCode::from_u16(code).unwrap();
        expect(Trouble::redirected(code), CURSOR, cells);
    }
}

#[test]
fn over_a_limit() {
    let fail = Fail(F::TooLarge, Unknown);
    let cells = [fail, fail, Park(Parking::TooLarge)];
    expect(Trouble::TooLarge, CURSOR, cells);
}

#[test]
fn no_memory_is_a_break_with_another_name() {
    let fail = Fail(F::Overloaded, Unknown);
    expect(Trouble::NoMemory, PLAIN, [fail, fail, BACK]);
    expect(Trouble::NoMemory, CURSOR, [BACK, BACK, BACK]);
}

#[test]
fn retry_after_is_read_from_the_head() {
    let mut headers = HeaderMap::new();
    headers.insert("retry-after", "7".parse().unwrap());
    let refusal = Refusal::new(
        StatusCode::SERVICE_UNAVAILABLE,
        &headers,
        SystemTime::UNIX_EPOCH,
    );
    assert_eq!(refusal.retry_after, Some(Duration::from_secs(7)));
}

/// What makes a POST run twice: nothing in its column brings it back but what certainly was not
/// processed.
#[test]
fn the_post_comes_back_only_when_it_was_not_processed() {
    for code in 100..=599 {
        for retry_after in [None, Some(Duration::from_secs(1))] {
            let refusal = Refusal {
                retry_after,
                ..refusal(code)
            };
            let decision = classify(&Trouble::Refused(refusal), Leg::Post, PLAIN);
            let again = matches!(decision, SendAgain { .. });
            assert_eq!(
                again,
                code == 429 || code == 503 && retry_after.is_some(),
                "{code}"
            );
            assert!(!matches!(decision, Decision::Return { .. }), "{code}");
        }
    }
}
