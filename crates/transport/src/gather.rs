//! Small pieces leave as one.
//!
//! hyper gives a message's head and its body as two pieces, so that nothing has to be copied. The
//! system takes a list of buffers a third of a microsecond slower than a single one, which is more
//! than copying a few hundred bytes costs; a call writes twice.

use std::io::IoSlice;

use smallvec::SmallVec;

/// Bytes that are copied rather than passed on as a list.
const SMALL: usize = 2048;

/// Room for them. An array would be written twice, and be zeros where nothing is needed.
pub(crate) type Space = SmallVec<[u8; SMALL]>;

/// The pieces as one, in `space`; `None` if there is one only, or more than is copied.
pub(crate) fn gathered<'a>(pieces: &[IoSlice<'_>], space: &'a mut Space) -> Option<&'a [u8]> {
    let all: usize = pieces.iter().map(|piece| piece.len()).sum();
    if pieces.len() < 2 || all > SMALL {
        return None;
    }
    for piece in pieces {
        space.extend_from_slice(piece);
    }
    Some(space)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gather(pieces: &[&[u8]]) -> Option<Vec<u8>> {
        let pieces: Vec<_> = pieces.iter().map(|piece| IoSlice::new(piece)).collect();
        gathered(&pieces, &mut Space::new()).map(<[u8]>::to_vec)
    }

    #[test]
    fn pieces_are_gathered_in_order_as_far_as_they_fit() {
        assert_eq!(gather(&[b"head", b"", b"body"]).unwrap(), b"headbody");
        assert_eq!(gather(&[b"alone"]), None);
        assert_eq!(gather(&[]), None);
        let full = [7; SMALL - 1];
        assert_eq!(gather(&[&full, b"a"]).unwrap().len(), SMALL);
        assert_eq!(gather(&[&full, b"ab"]), None);
    }
}
