//! The guests that the tests start: this test binary itself, in a process of its own.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Command, exit};

use seatrial_core::control::{
    Decoder, ErrorReport, Frame, GuestFrame, Hello, HostFrame, Ready, TOKEN_VARIABLE,
};
use seatrial_core::launch::adopt_descriptor;

use crate::support::{MODE, PORT};

/// Not a test of its own: what a child of these tests becomes.
#[test]
#[allow(clippy::exit, reason = "a guest ends as a process, not as a test")]
fn fake_guest() {
    let Ok(mode) = std::env::var(MODE) else {
        return;
    };
    let mut channel = connected();
    let hello = GuestFrame::Hello(Hello {
        first_instruction_mono_ns: 1,
        hello_mono_ns: 2,
        pid: std::process::id(),
        build: "fake".to_owned(),
    })
    .encode()
    .unwrap();
    match mode.as_str() {
        "silent" => {}
        "early" => {
            eprintln!("out of luck");
            exit(3);
        }
        "garbage" => channel.write_all(&[0xee; 4096]).unwrap(),
        "wrong-version" => channel.write_all(&[2, 0, 0, 0, 9, 1]).unwrap(),
        "half" => {
            channel.write_all(&hello[..10]).unwrap();
            exit(0);
        }
        "twice" => channel
            .write_all(&[hello.clone(), hello.clone()].concat())
            .unwrap(),
        "refusing" => {
            let report = ErrorReport {
                code: "bad-role".to_owned(),
                message: "no".to_owned(),
            };
            channel
                .write_all(&GuestFrame::Error(report).encode().unwrap())
                .unwrap();
            exit(70);
        }
        "null" | "deaf" => channel.write_all(&hello).unwrap(),
        _ => {
            if let Some(path) = mode.strip_prefix("parent:") {
                // An orphan in a session of its own, out of reach of any signal to our group.
                let line = format!("setsid sleep 1000 & echo $! > {path}");
                Command::new("/bin/sh")
                    .args(["-c", &line])
                    .status()
                    .unwrap();
            }
            obey(&mut channel, &hello, &mode);
        }
    }
    if mode == "null" {
        exit(0);
    }
    // These stay, whatever they are told, until they are killed.
    loop {
        std::thread::park();
    }
}

/// The channel that was inherited, or a call on the host; a stream is a stream.
fn connected() -> UnixStream {
    let Ok(port) = std::env::var(PORT) else {
        return UnixStream::from(adopt_descriptor(3).unwrap());
    };
    let mut stream = TcpStream::connect(("127.0.0.1", port.parse().unwrap())).unwrap();
    let token = std::env::var(TOKEN_VARIABLE).unwrap();
    stream.write_all(token.as_bytes()).unwrap();
    UnixStream::from(OwnedFd::from(stream))
}

/// Greets byte by byte, then does as it is told.
#[allow(clippy::exit, reason = "a guest ends as a process, not as a test")]
fn obey(channel: &mut UnixStream, hello: &[u8], mode: &str) -> ! {
    for byte in hello {
        channel.write_all(&[*byte]).unwrap();
    }
    let ready = GuestFrame::Ready(Ready {
        ready_mono_ns: 3,
        endpoints: Vec::new(),
    });
    channel.write_all(&ready.encode().unwrap()).unwrap();
    let mut decoder = Decoder::<HostFrame>::new();
    let mut buffer = [0; 4096];
    loop {
        let length = channel.read(&mut buffer).unwrap();
        if length == 0 {
            exit(0);
        }
        decoder.push(&buffer[..length]).unwrap();
        while let Some(frame) = decoder.next_frame().unwrap() {
            match frame {
                HostFrame::Ping(_) if mode == "liar" => {
                    channel
                        .write_all(&GuestFrame::Pong(vec![1]).encode().unwrap())
                        .unwrap();
                }
                HostFrame::Ping(payload) => {
                    channel
                        .write_all(&GuestFrame::Pong(payload).encode().unwrap())
                        .unwrap();
                }
                HostFrame::Stop => exit(0),
                HostFrame::Run(_) | HostFrame::Stats => exit(1),
            }
        }
    }
}
