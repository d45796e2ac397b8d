use proptest::prelude::*;

use super::*;
use crate::rabbit::socket::SocketHandle;

const FRAME_MAX: u32 = 131_072;

fn frame(kind: u8, channel: u16, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&[kind], channel.to_be_bytes().as_slice(), &length, payload, &[END]].concat()
}

fn deliver(key: &[u8]) -> Vec<u8> {
    let key = [&[u8::try_from(key.len()).unwrap()], key].concat();
    [vec![0, 60, 0, 60, 1, b't'], 7_u64.to_be_bytes().to_vec(), vec![0, 1, b'g'], key].concat()
}

/// Of a message with one header, `text`, and an id.
fn header(text: &[u8], id: &[u8]) -> Vec<u8> {
    let length = |bytes: usize| u32::try_from(bytes).unwrap().to_be_bytes();
    let entry = [b"\x01nS".as_slice(), &length(text.len()), text].concat();
    let id = [&[u8::try_from(id.len()).unwrap()], id].concat();
    [&[0, 60, 0, 0], 2_u64.to_be_bytes().as_slice(), &[0x20, 0x80], &length(entry.len()), &entry, &id].concat()
}

/// Returns what lapin reads if the broker's bytes arrive in such pieces and lapin reads so many at once.
fn read(sent: &[u8], piece: usize, asked: usize) -> io::Result<Vec<u8>> {
    let (mut frames, mut rest, mut got, mut out) =
        (Frames::new(FRAME_MAX, SocketHandle::default().slot()), sent, Vec::new(), vec![0; asked]);
    loop {
        let given = frames.copy_to(&mut out);
        got.extend_from_slice(&out[..given]);
        if given > 0 {
            continue;
        }
        if rest.is_empty() {
            return Ok(got);
        }
        if let Some(most) = frames.direct() {
            let (now, later) = rest.split_at(most.min(piece).min(rest.len()));
            got.extend_from_slice(now);
            frames.read_directly(now.len());
            rest = later;
            continue;
        }
        let space = frames.space();
        let (now, later) = rest.split_at(piece.min(space.len()).min(rest.len()));
        space[..now.len()].copy_from_slice(now);
        frames.add(now.len())?;
        rest = later;
    }
}

/// Kind, channel and payload of each frame.
fn split(mut bytes: &[u8]) -> Vec<(u8, u16, &[u8])> {
    let mut frames = Vec::new();
    while let Some((&[kind, a, b, c, d, e, f], rest)) = bytes.split_first_chunk::<HEAD>() {
        let length = usize::try_from(u32::from_be_bytes([c, d, e, f])).unwrap();
        assert_eq!(rest[length], END);
        frames.push((kind, u16::from_be_bytes([a, b]), &rest[..length]));
        bytes = &rest[length + 1..];
    }
    assert_eq!(bytes, b"");
    frames
}

fn holds(payload: &[u8], defect: MessageDefect) -> bool {
    let word = defect.as_str().as_bytes();
    payload.windows(word.len()).any(|window| window == word)
}

#[test]
fn sound_frames_come_out_as_they_went_in_whatever_their_pieces() {
    let body = frame(3, 1, &vec![0xff; 100_000]);
    let message =
        [frame(METHOD, 1, &deliver(b"k")), frame(HEADER, 1, &header(&b"x".repeat(50_000), b"id")), body].concat();
    let sent = [message.clone(), frame(8, 0, b""), message].concat();
    for (piece, asked) in [(1_000, 100), (usize::MAX, usize::MAX >> 40), (7, 100_000), (40_000, 40_000)] {
        assert!(read(&sent, piece, asked).unwrap() == sent, "pieces of {piece}, {asked} asked for");
    }
}

#[test]
fn what_is_wrong_with_a_key_is_told_with_the_properties_of_that_message_alone() {
    let (hostile, good) = (frame(METHOD, 1, &deliver(b"k\xff")), frame(METHOD, 2, &deliver(b"k")));
    let properties = |channel| frame(HEADER, channel, &header(b"", b"id"));
    let sent = [hostile, good.clone(), properties(2), properties(1), good.clone(), properties(1)].concat();
    let got = read(&sent, 10, 1_000).unwrap();
    let marked: Vec<_> = split(&got).iter().map(|(_, _, payload)| holds(payload, MessageDefect::NotText)).collect();
    assert_eq!(marked, [false, false, false, true, false, false]);
    assert_eq!(split(&got)[0].2, deliver(b"k?"));
}

#[test]
fn headers_longer_than_a_frame_and_longer_than_is_held_are_replaced_and_what_follows_is_whole() {
    for length in [122_881, 131_064, 131_072, 262_144, BUFFERED, 5 * BUFFERED] {
        let after = [frame(3, 1, b"{}"), frame(METHOD, 1, &deliver(b"next"))].concat();
        let sent = [frame(HEADER, 1, &header(&vec![b'x'; length], b"id")), after.clone()].concat();
        for piece in [10_000, usize::MAX] {
            let got = read(&sent, piece, 30_000).unwrap();
            let frames = split(&got);
            assert!(frames[0].2.len() < 1_000 && holds(frames[0].2, MessageDefect::TooLong), "{length}");
            assert!(got.ends_with(&after) && frames.len() == 3, "{length}");
        }
    }
}

#[test]
fn no_more_is_held_than_a_frame_needs_and_it_is_let_go() {
    let mut frames = Frames::new(FRAME_MAX, SocketHandle::default().slot());
    let mut sent = &*frame(HEADER, 1, &header(&vec![b'x'; 5 * BUFFERED], b"id"));
    let mut most = 0;
    while !sent.is_empty() {
        let space = frames.space();
        let now = space.len().min(sent.len());
        space[..now].copy_from_slice(&sent[..now]);
        frames.add(now).unwrap();
        sent = &sent[now..];
        most = most.max(frames.bytes.len());
        while frames.copy_to(&mut [0; 1_000]) > 0 {}
    }
    assert!(most <= 2 * BUFFERED, "{most}");
    frames.space();
    assert_eq!(frames.bytes.len(), CHUNK);
}

#[test]
fn a_smaller_limit_of_the_brokers_counts_and_a_larger_or_none_does_not() {
    let tune =
        |limit: u32| frame(METHOD, 0, &[&[0, 10, 0, 30, 0, 0], limit.to_be_bytes().as_slice(), &[0, 0]].concat());
    for (limit, defective) in [(0, false), (u32::MAX, false), (65_536, true)] {
        let sent = [tune(limit), frame(HEADER, 1, &header(&vec![b'x'; 100_000], b"id"))].concat();
        let got = read(&sent, usize::MAX, 1_000).unwrap();
        assert_eq!(holds(split(&got)[1].2, MessageDefect::TooLong), defective, "{limit}");
    }
}

#[test]
fn a_broker_that_sends_methods_of_no_sense_ends_the_connection() {
    assert!(read(&frame(METHOD, 1, &vec![0; BUFFERED]), usize::MAX, 1_000).is_err());
    assert!(read(&frame(METHOD, 1, b"\0\x3c\0\x3c\x09short"), usize::MAX, 1_000).is_err());
}

proptest! {
    #[test]
    fn whatever_a_message_holds_no_frame_is_too_long_and_bodies_are_untouched(
        messages in prop::collection::vec(
            (prop::collection::vec(any::<u8>(), 0..300), any::<bool>(), prop::collection::vec(any::<u8>(), 0..300)),
            1..6,
        ),
        long in 0..300_000_usize,
        piece in 1..70_000_usize,
        asked in 1..70_000_usize,
    ) {
        let mut sent = Vec::new();
        for (text, is_header, body) in &messages {
            let properties = if *is_header { header(text, b"id") } else { text.clone() };
            sent.extend([frame(METHOD, 1, &deliver(b"k")), frame(HEADER, 1, &properties), frame(3, 1, body)].concat());
        }
        sent.extend(frame(HEADER, 1, &header(&vec![b'x'; long], b"id")));
        let got = read(&sent, piece, asked).unwrap();
        let frames = split(&got);
        prop_assert_eq!(frames.len(), 3 * messages.len() + 1);
        prop_assert!(frames.iter().all(|(_, _, payload)| payload.len() + HEAD < FRAME_MAX as usize));
        let bodies: Vec<_> = frames.iter().filter(|(kind, _, _)| *kind == 3).map(|(_, _, body)| *body).collect();
        prop_assert_eq!(bodies, messages.iter().map(|(_, _, body)| &**body).collect::<Vec<_>>());
    }
}
