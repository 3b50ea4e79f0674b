//! `Retry-After` (RFC 9110, section 10.2.3).

use std::time::{Duration, SystemTime};

use http::HeaderMap;
use http::header::{DATE, RETRY_AFTER};

/// How long a response asks to wait: `Retry-After` in seconds, or as an HTTP-date measured against
/// the response's own `Date` and without one against `wall`. A time that is past is no wait; a
/// value that is neither is no hint.
#[must_use]
pub fn retry_after(headers: &HeaderMap, wall: SystemTime) -> Option<Duration> {
    let value = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
        return Some(Duration::from_secs(value.parse().unwrap_or(u64::MAX)));
    }
    let until = httpdate::parse_http_date(value).ok()?;
    let date = headers.get(DATE).and_then(|date| date.to_str().ok());
    let from = date
        .and_then(|date| httpdate::parse_http_date(date.trim()).ok())
        .unwrap_or(wall);
    Some(until.duration_since(from).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn wall() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777)
    }

    fn read(after: &str, date: Option<&str>) -> Option<Duration> {
        let mut headers = HeaderMap::new();
        headers.insert(RETRY_AFTER, HeaderValue::from_str(after).unwrap());
        if let Some(date) = date {
            headers.insert(DATE, HeaderValue::from_str(date).unwrap());
        }
        retry_after(&headers, wall())
    }

    #[test]
    fn seconds() {
        assert_eq!(read("120", None), Some(Duration::from_secs(120)));
        assert_eq!(read(" 0 ", None), Some(Duration::ZERO));
        let huge = read("99999999999999999999999", None);
        assert_eq!(huge, Some(Duration::from_secs(u64::MAX)));
    }

    #[test]
    fn a_date_against_the_response_s_date() {
        let date = Some("Sun, 06 Nov 1994 08:49:00 GMT");
        let after = read("Sun, 06 Nov 1994 08:49:37 GMT", date);
        assert_eq!(after, Some(Duration::from_secs(37)));
    }

    #[test]
    fn a_date_against_the_wall_clock() {
        let after = read("Sun, 06 Nov 1994 08:50:37 GMT", None);
        assert_eq!(after, Some(Duration::from_secs(60)));
        let unreadable = read("Sun, 06 Nov 1994 08:50:37 GMT", Some("yesterday"));
        assert_eq!(unreadable, Some(Duration::from_secs(60)));
    }

    #[test]
    fn the_old_date_forms() {
        let rfc850 = read("Sunday, 06-Nov-94 08:49:47 GMT", None);
        assert_eq!(rfc850, Some(Duration::from_secs(10)));
        let asctime = read("Sun Nov  6 08:49:47 1994", None);
        assert_eq!(asctime, Some(Duration::from_secs(10)));
    }

    #[test]
    fn a_past_date_is_no_wait() {
        let after = read("Sun, 06 Nov 1994 08:00:00 GMT", None);
        assert_eq!(after, Some(Duration::ZERO));
    }

    #[test]
    fn nonsense_is_no_hint() {
        for value in ["", "-1", "1.5", "soon", "+3"] {
            assert_eq!(read(value, None), None, "{value:?}");
        }
        assert_eq!(retry_after(&HeaderMap::new(), wall()), None);
    }
}
