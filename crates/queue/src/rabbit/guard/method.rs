//! Checks the methods in which the broker repeats text of other clients.

use super::walk::{FieldWalk, WalkResult};

const START: (u16, u16) = (10, 10);
const TUNE: (u16, u16) = (10, 30);
const CONNECTION_CLOSE: (u16, u16) = (10, 50);
const CHANNEL_CLOSE: (u16, u16) = (20, 40);
const RETURN: (u16, u16) = (60, 50);
const DELIVER: (u16, u16) = (60, 60);
const GET_OK: (u16, u16) = (60, 71);

/// Replaces invalid UTF-8 in texts. Returns true if the method belongs to a message and something was replaced.
pub(super) fn replace_invalid_text(payload: &mut [u8]) -> WalkResult<bool> {
    let mut walk = FieldWalk::new(payload);
    let name = (walk.u16()?, walk.u16()?);
    match name {
        START => {
            walk.skip(2)?;
            walk.table()?;
        }
        CONNECTION_CLOSE | CHANNEL_CLOSE => {
            walk.skip(2)?;
            walk.short()?;
        }
        // The last two short strings of each of these are the exchange and the routing key.
        DELIVER => {
            walk.short()?;
            walk.skip(9)?;
            walk.short()?;
            walk.short()?;
        }
        GET_OK => {
            walk.skip(9)?;
            walk.short()?;
            walk.short()?;
        }
        RETURN => {
            walk.skip(2)?;
            walk.short()?;
            walk.short()?;
            walk.short()?;
        }
        _ => {}
    }
    Ok(walk.replaced && matches!(name, DELIVER | GET_OK | RETURN))
}

/// Returns the maximum frame size that the broker requests, if the method contains it; 0 means no limit.
pub(super) fn frame_max(payload: &[u8]) -> Option<u32> {
    let limit = payload.strip_prefix(&name(TUNE))?.get(2..6)?;
    limit.try_into().ok().map(u32::from_be_bytes)
}

fn name((class, method): (u16, u16)) -> [u8; 4] {
    let ([a, b], [c, d]) = (class.to_be_bytes(), method.to_be_bytes());
    [a, b, c, d]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MessageDefect;

    fn short(text: &[u8]) -> Vec<u8> {
        [&[u8::try_from(text.len()).unwrap()], text].concat()
    }

    #[test]
    fn exchange_and_key_of_a_message_become_text() {
        let deliver =
            |key: &[u8]| [name(DELIVER).to_vec(), short(b"tag"), vec![0; 9], short(b"g"), short(key)].concat();
        let got = |key: &[u8]| [name(GET_OK).to_vec(), vec![0; 9], short(b"g"), short(key), vec![0; 4]].concat();
        let returned = |key: &[u8]| [name(RETURN).to_vec(), vec![1, 56], short(b"n"), short(b"g"), short(key)].concat();
        for method in [&deliver as &dyn Fn(&[u8]) -> Vec<u8>, &got, &returned] {
            let mut bytes = method(b"cdn.\xc3(");
            assert_eq!(replace_invalid_text(&mut bytes), Ok(true));
            assert_eq!(bytes, method(b"cdn.?("));
            assert_eq!(replace_invalid_text(&mut bytes), Ok(false));
            bytes.truncate(9);
            assert_eq!(replace_invalid_text(&mut bytes), Err(MessageDefect::Malformed));
        }
    }

    #[test]
    fn texts_of_the_broker_become_text_and_are_not_defects_of_a_message() {
        for close in [CONNECTION_CLOSE, CHANNEL_CLOSE] {
            let closed = |text: &[u8]| [name(close).to_vec(), vec![1, 144], short(text), vec![0; 4]].concat();
            let mut bytes = closed(b"no \xff");
            assert_eq!(replace_invalid_text(&mut bytes), Ok(false));
            assert_eq!(bytes, closed(b"no ?"));
        }
    }

    #[test]
    fn a_frame_size_is_read_if_there_is_one() {
        let tune = [name(TUNE).as_slice(), &[0, 7], &131_072_u32.to_be_bytes(), &[0, 60]].concat();
        assert_eq!(frame_max(&tune), Some(131_072));
        assert_eq!(frame_max(&tune[..9]), None);
        assert_eq!(frame_max(&name(DELIVER)), None);
    }
}
