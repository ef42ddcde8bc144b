//! `seatrial-launch`: the small process that starts sandboxes, so that no start is charged for
//! the size of ours. See `seatrial_core::launch`.
//!
//! It talks on the two sockets that it is started with and ends when the first is closed.

use std::io::{self, Write};
use std::process::ExitCode;

use seatrial_core::launch::{Server, adopt_descriptor};

const USAGE: &str = "usage: seatrial-launch --control-fd N --descriptor-fd N";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let Some((control, descriptors)) = parse(&arguments) else {
        return complain(USAGE, 2);
    };
    match serve(control, descriptors) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => complain(&format!("seatrial-launch: {error}"), 1),
    }
}

fn serve(control: i32, descriptors: i32) -> io::Result<()> {
    Server::new(adopt_descriptor(control)?, adopt_descriptor(descriptors)?)?.run()
}

fn parse(arguments: &[String]) -> Option<(i32, i32)> {
    let [first, control, second, descriptors] = arguments else {
        return None;
    };
    let is_known = first == "--control-fd" && second == "--descriptor-fd";
    let number = |text: &String| text.parse().ok().filter(|number| *number > 2);
    is_known
        .then_some((number(control)?, number(descriptors)?))
        .filter(|(a, b)| a != b)
}

fn complain(text: &str, code: u8) -> ExitCode {
    // There is nobody left to tell when even this fails.
    let _ = writeln!(io::stderr(), "{text}");
    ExitCode::from(code)
}
