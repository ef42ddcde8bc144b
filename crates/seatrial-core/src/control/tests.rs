use super::frame::TYPE_ERROR;
use super::*;
use proptest::prelude::*;

fn any_guest_frame() -> impl Strategy<Value = GuestFrame> {
    prop_oneof![
        (any::<u64>(), any::<u64>(), any::<u32>(), "[ -~]{0,64}").prop_map(
            |(first_instruction_mono_ns, hello_mono_ns, pid, build)| GuestFrame::Hello(Hello {
                first_instruction_mono_ns,
                hello_mono_ns,
                pid,
                build,
            })
        ),
        (any::<u64>(), prop::collection::vec("\\PC{0,20}", 0..4)).prop_map(
            |(ready_mono_ns, endpoints)| GuestFrame::Ready(Ready {
                ready_mono_ns,
                endpoints
            })
        ),
        prop::collection::vec(any::<u8>(), 0..300).prop_map(GuestFrame::Pong),
        "\\PC{0,80}".prop_map(GuestFrame::Result),
        "\\PC{0,80}".prop_map(GuestFrame::Stats),
        ("[a-z-]{0,20}", "\\PC{0,40}")
            .prop_map(|(code, message)| GuestFrame::Error(ErrorReport { code, message })),
    ]
}

fn any_host_frame() -> impl Strategy<Value = HostFrame> {
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..300).prop_map(HostFrame::Ping),
        "\\PC{0,80}".prop_map(HostFrame::Run),
        Just(HostFrame::Stop),
        Just(HostFrame::Stats),
    ]
}

/// Feeds `bytes` in pieces of the given sizes (repeated) and gives all frames.
fn decode_in_pieces<F: Frame>(bytes: &[u8], sizes: &[usize]) -> Result<Vec<F>, ControlError> {
    let mut decoder = Decoder::<F>::new();
    let mut frames = Vec::new();
    let mut rest = bytes;
    for size in sizes.iter().cycle() {
        if rest.is_empty() {
            break;
        }
        let (piece, later) = rest.split_at((*size).min(rest.len()));
        rest = later;
        decoder.push(piece)?;
        while let Some(frame) = decoder.next_frame()? {
            frames.push(frame);
        }
    }
    decoder.finish()?;
    Ok(frames)
}

fn stream_of<F: Frame>(frames: &[F]) -> Vec<u8> {
    frames
        .iter()
        .flat_map(|frame| frame.encode().unwrap())
        .collect()
}

proptest! {
    #[test]
    fn guest_frames_survive_any_cut(
        frames in prop::collection::vec(any_guest_frame(), 0..6),
        sizes in prop::collection::vec(1..40usize, 1..6),
    ) {
        let bytes = stream_of(&frames);
        prop_assert_eq!(decode_in_pieces::<GuestFrame>(&bytes, &sizes), Ok(frames));
    }

    #[test]
    fn host_frames_survive_any_cut(
        frames in prop::collection::vec(any_host_frame(), 0..6),
        sizes in prop::collection::vec(1..40usize, 1..6),
    ) {
        let bytes = stream_of(&frames);
        prop_assert_eq!(decode_in_pieces::<HostFrame>(&bytes, &sizes), Ok(frames));
    }

    /// Whatever comes, the decoder gives frames or a typed error; the cut does not matter.
    #[test]
    fn garbage_never_panics(
        bytes in prop::collection::vec(any::<u8>(), 0..400),
        sizes in prop::collection::vec(1..40usize, 1..6),
    ) {
        let whole = decode_in_pieces::<GuestFrame>(&bytes, &[usize::MAX]);
        prop_assert_eq!(decode_in_pieces::<GuestFrame>(&bytes, &sizes), whole);
        let whole = decode_in_pieces::<HostFrame>(&bytes, &[usize::MAX]);
        prop_assert_eq!(decode_in_pieces::<HostFrame>(&bytes, &sizes), whole);
    }

    /// The same with a plausible start, which gets past the first checks.
    #[test]
    fn damaged_frames_never_panic(
        frame in any_guest_frame(), offset: prop::sample::Index, value: u8,
    ) {
        let mut bytes = frame.encode().unwrap();
        let position = offset.index(bytes.len());
        bytes[position] = value;
        let _ = decode_in_pieces::<GuestFrame>(&bytes, &[7]);
        let _ = decode_in_pieces::<HostFrame>(&bytes, &[7]);
    }

    /// A stream that ends early is never taken for a whole one.
    #[test]
    fn truncation_is_seen(frame in any_guest_frame(), at: prop::sample::Index) {
        let bytes = frame.encode().unwrap();
        let held_bytes = at.index(bytes.len());
        prop_assume!(held_bytes > 0);
        prop_assert_eq!(
            decode_in_pieces::<GuestFrame>(&bytes[..held_bytes], &[3]),
            Err(ControlError::Truncated { held_bytes })
        );
    }
}

#[test]
fn layout_is_the_documented_one() {
    let hello = GuestFrame::Hello(Hello {
        first_instruction_mono_ns: 1,
        hello_mono_ns: 2,
        pid: 3,
        build: "g".to_owned(),
    });
    let mut expected = vec![23, 0, 0, 0, 2, 0x01];
    expected.extend([
        1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, b'g',
    ]);
    assert_eq!(hello.encode().unwrap(), expected);
    assert_eq!(HostFrame::Stop.encode().unwrap(), [2, 0, 0, 0, 2, 0x13]);
    let ready = GuestFrame::Ready(Ready {
        ready_mono_ns: 0,
        endpoints: Vec::new(),
    });
    assert_eq!(ready.encode().unwrap().len(), 14);
}

#[test]
fn bad_fields_are_refused_at_the_first_byte_that_shows_them() {
    let cases: [(&[u8], ControlError); 6] = [
        (&[1, 0, 0, 0], ControlError::Length { length: 1 }),
        (
            &[1, 0, 16, 0],
            ControlError::Length {
                length: (1 << 20) + 1,
            },
        ),
        (&[2, 0, 0, 0, 9], ControlError::Version { found: 9 }),
        (
            &[2, 0, 0, 0, 2, 0x01],
            ControlError::Type {
                found: 0x01,
                sender: "host",
            },
        ),
        (
            &[3, 0, 0, 0, 2, 0x13],
            ControlError::PayloadLength {
                frame: "STOP",
                found_bytes: 1,
                min_bytes: 0,
                max_bytes: 0,
            },
        ),
        (
            &[3, 0, 1, 0, 2, 0x11],
            ControlError::PayloadLength {
                frame: "PING",
                found_bytes: PING_BYTES_MAX + 1,
                min_bytes: 0,
                max_bytes: PING_BYTES_MAX,
            },
        ),
    ];
    for (bytes, expected) in cases {
        let mut decoder = Decoder::<HostFrame>::new();
        decoder.push(&bytes[..bytes.len() - 1]).unwrap();
        assert_eq!(decoder.next_frame(), Ok(None), "{bytes:?}");
        decoder.push(&bytes[bytes.len() - 1..]).unwrap();
        assert_eq!(decoder.next_frame(), Err(expected), "{bytes:?}");
    }
}

#[test]
fn the_first_error_is_final() {
    let mut decoder = Decoder::<HostFrame>::new();
    decoder.push(&[0, 0, 0, 0]).unwrap();
    let error = ControlError::Length { length: 0 };
    assert_eq!(decoder.next_frame(), Err(error.clone()));
    assert_eq!(
        decoder.push(&HostFrame::Stop.encode().unwrap()),
        Err(error.clone())
    );
    assert_eq!(decoder.next_frame(), Err(error.clone()));
    assert_eq!(decoder.finish(), Err(error));
}

#[test]
fn what_is_held_is_bounded() {
    let mut decoder = Decoder::<HostFrame>::new();
    let chunk = vec![0; 64 << 10];
    let error = loop {
        if let Err(error) = decoder.push(&chunk) {
            break error;
        }
        assert!(decoder.held_bytes() <= BUFFER_BYTES_MAX);
    };
    assert!(matches!(error, ControlError::Overflow { .. }), "{error}");
    assert_eq!(decoder.held_bytes(), 0);
}

#[test]
fn oversized_frames_are_not_encoded() {
    let long = "x".repeat(PAYLOAD_BYTES_MAX);
    assert!(GuestFrame::Result(long.clone()).encode().is_ok());
    assert!(GuestFrame::Result(long + "x").encode().is_err());
    assert!(
        HostFrame::Ping(vec![0; PING_BYTES_MAX + 1])
            .encode()
            .is_err()
    );
    let hello = Hello {
        first_instruction_mono_ns: 0,
        hello_mono_ns: 0,
        pid: 0,
        build: "b".repeat(BUILD_BYTES_MAX + 1),
    };
    assert!(GuestFrame::Hello(hello).encode().is_err());
}

#[test]
fn the_largest_frame_passes() {
    let frame = HostFrame::Run("r".repeat(PAYLOAD_BYTES_MAX));
    let bytes = frame.encode().unwrap();
    assert_eq!(
        decode_in_pieces::<HostFrame>(&bytes, &[65_536]),
        Ok(vec![frame])
    );
}

#[test]
fn errors_carry_code_and_message() {
    let frame = GuestFrame::Error(ErrorReport {
        code: "bad-request".to_owned(),
        message: "no probe".to_owned(),
    });
    let bytes = frame.encode().unwrap();
    assert_eq!(
        decode_in_pieces::<GuestFrame>(&bytes, &[1]),
        Ok(vec![frame])
    );
    let mut bad = vec![4, 0, 0, 0, VERSION, TYPE_ERROR];
    bad.extend(b"{}");
    let error = decode_in_pieces::<GuestFrame>(&bad, &[64]).unwrap_err();
    assert!(
        matches!(error, ControlError::Payload { frame: "ERROR", .. }),
        "{error}"
    );
}
