//! Being process 1 of a virtual machine: what a kernel leaves to its init.
//!
//! The kernel's command line gives `--machine ORDER ROLE`, where `ORDER` is
//! settings with commas between them and `ROLE` the words of the role with `+`
//! between them, each byte that is no letter, digit or one of `-._:/=` as `%XX`
//! (a kernel gives its init 32 words at most, and splits at blanks):
//!
//! | setting | meaning |
//! | --- | --- |
//! | `channel=port` | the control channel is the first virtio serial port |
//! | `channel=vsock:PORT` | it is the first connection to this vsock port |
//! | `address=IP/BITS` | the address of `eth0` |
//! | `data=NAME` | the device with the ext4 file system that becomes `/data` |
//! | `tools=NAME` | the same for `/tools`, read-only |
//! | `modules=NAME:NAME` | kernel modules to be loaded, in this order |
//! | `template` | wait on the second serial port, or the next vsock port, for the real order |
//!
//! A template is a machine that is stopped and copied while it waits. Each copy
//! then reads its own order and role: one line, with a blank between them.

use std::ffi::{OsStr, OsString};
use std::net::Ipv4Addr;
use std::os::fd::{IntoRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{Mode, OFlags, Timespec, inotify, open};
use rustix::io::{Errno, read, write};
use rustix::mount::{MountFlags, mount};

use crate::error::GuestError;
use crate::sys;

/// The option that makes the guest prepare a machine before all else.
pub const OPTION: &[u8] = b"--machine";

/// Where the kernel's modules are.
const MODULES: &str = "/modules";
const CHANNEL_PORT: &str = "vport0p1";
const ORDER_PORT: &str = "vport0p2";
const INTERFACE: &str = "eth0";
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
/// A device that did not come by then never will.
const DEVICE_WAIT: Timespec = Timespec {
    tv_sec: 20,
    tv_nsec: 0,
};
/// How long between looks whether a port can be opened, and how many: two seconds.
const PORT_PAUSE: std::time::Duration = std::time::Duration::from_millis(1);
const PORT_TRIES: u32 = 2000;
/// An order with its role is a few hundred bytes.
const ORDER_BYTES_MAX: usize = 16 << 10;

/// Where the host's end of the control channel comes in.
#[derive(Debug, PartialEq)]
enum Door {
    Port,
    Vsock(u32),
}

/// What the machine is to be.
#[derive(Debug, PartialEq)]
struct Order {
    door: Door,
    address: Option<(Ipv4Addr, u8)>,
    data: Option<String>,
    tools: Option<String>,
    modules: Vec<String>,
    is_template: bool,
}

/// A machine that is ready for its role.
#[derive(Debug)]
pub struct Machine {
    /// The control channel.
    pub channel_fd: i32,
    /// The role and its options.
    pub words: Vec<OsString>,
    /// The first instruction of this very machine: in a copy, the first after the wait.
    pub first_instruction_ns: u64,
}

/// Prepares the machine.
///
/// # Errors
/// The order is not one, or the kernel refused a step.
pub fn prepare(
    order: &[u8],
    role: &[u8],
    first_instruction_ns: u64,
) -> Result<Machine, GuestError> {
    let mut order = Order::parse(order)?;
    let mut machine = Machine {
        channel_fd: -1,
        words: parse_role(role)?,
        first_instruction_ns,
    };
    mount_kernel_files()?;
    load_modules(&order.modules)?;
    if order.is_template {
        let said = wait_as_template(&order.door, &mut machine.first_instruction_ns)?;
        (order, machine.words) = parse_said(&said)?;
    }
    sys::raise_interface("lo", None).map_err(system("set up lo"))?;
    if let Some(address) = order.address {
        // Neighbour discovery of IPv6 is traffic that nobody asked for.
        let _ = std::fs::write("/proc/sys/net/ipv6/conf/all/disable_ipv6", "1");
        sys::raise_interface(INTERFACE, Some(address)).map_err(system("set up eth0"))?;
    }
    if let Some(device) = &order.data {
        let path = await_device(device)?;
        mount(path, "/data", "ext4", MountFlags::NOATIME, None).map_err(system("mount /data"))?;
    }
    if let Some(device) = &order.tools {
        let path = await_device(device)?;
        mount(path, "/tools", "ext4", MountFlags::RDONLY, None).map_err(system("mount /tools"))?;
    }
    machine.channel_fd = match order.door {
        Door::Port => open_port(CHANNEL_PORT)?,
        Door::Vsock(port) => sys::accept_vsock(port).map_err(system("accept on vsock"))?,
    }
    .into_raw_fd();
    Ok(machine)
}

impl Order {
    fn parse(text: &[u8]) -> Result<Self, GuestError> {
        let text = std::str::from_utf8(text).map_err(|_| bad("the order is not UTF-8"))?;
        let mut order = Self {
            door: Door::Port,
            address: None,
            data: None,
            tools: None,
            modules: Vec::new(),
            is_template: false,
        };
        for setting in text.split(',').filter(|setting| !setting.is_empty()) {
            match setting.split_once('=') {
                Some(("channel", "port")) => order.door = Door::Port,
                Some(("channel", value)) => {
                    let port = value.strip_prefix("vsock:").and_then(|it| it.parse().ok());
                    order.door = Door::Vsock(port.ok_or_else(|| {
                        bad(&format!("channel={value}, expected port or vsock:PORT"))
                    })?);
                }
                Some(("address", value)) => order.address = Some(parse_address(value)?),
                Some(("modules", value)) if value.split(':').all(is_module_name) => {
                    order.modules = value.split(':').map(str::to_owned).collect();
                }
                Some(("data", value)) if is_device_name(value) => {
                    order.data = Some(value.to_owned());
                }
                Some(("tools", value)) if is_device_name(value) => {
                    order.tools = Some(value.to_owned());
                }
                None if setting == "template" => order.is_template = true,
                _ => {
                    return Err(bad(&format!(
                        "{setting}; expected channel=, address=, data=NAME, tools=NAME, modules=NAME:NAME or template"
                    )));
                }
            }
        }
        Ok(order)
    }
}

fn parse_address(value: &str) -> Result<(Ipv4Addr, u8), GuestError> {
    value
        .split_once('/')
        .and_then(|(address, bits)| Some((address.parse().ok()?, bits.parse().ok()?)))
        .filter(|(_, bits)| *bits <= 32)
        .ok_or_else(|| bad(&format!("address={value}, expected IP/BITS")))
}

fn is_device_name(value: &str) -> bool {
    !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

fn is_module_name(value: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_-".contains(&byte);
    !value.is_empty() && value.bytes().all(is_allowed)
}

fn bad(what: &str) -> GuestError {
    GuestError::Usage(format!("--machine: {what}"))
}

fn system(what: &'static str) -> impl FnOnce(Errno) -> GuestError {
    move |errno| GuestError::System { what, errno }
}

fn mount_kernel_files() -> Result<(), GuestError> {
    for (kind, place) in [
        ("devtmpfs", "/dev"),
        ("proc", "/proc"),
        ("sysfs", "/sys"),
        ("tmpfs", "/tmp"),
    ] {
        match mount(kind, place, kind, MountFlags::empty(), None) {
            Ok(()) | Err(Errno::BUSY) => {} // the kernel may have mounted /dev itself
            Err(errno) => return Err(system("mount the kernel's file systems")(errno)),
        }
    }
    Ok(())
}

fn load_modules(names: &[String]) -> Result<(), GuestError> {
    for name in names {
        let path = Path::new(MODULES).join(name).with_extension("ko");
        let file = open(&path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
            .map_err(GuestError::probe(format!("open the module {name}")))?;
        match rustix::system::finit_module(&file, c"", 0) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => {
                return Err(GuestError::probe(format!("load the module {name}"))(errno));
            }
        }
    }
    Ok(())
}

/// Waits until `/dev` has a file, and gives its path.
fn await_device(name: &str) -> Result<String, GuestError> {
    let path = format!("/dev/{name}");
    let watch = inotify::init(inotify::CreateFlags::CLOEXEC).map_err(system("watch /dev"))?;
    inotify::add_watch(&watch, "/dev", inotify::WatchFlags::CREATE)
        .map_err(system("watch /dev"))?;
    while !Path::new(&path).exists() {
        let mut watched = [PollFd::new(&watch, PollFlags::IN)];
        match poll(&mut watched, Some(&DEVICE_WAIT)) {
            Ok(0) => return Err(system("wait for a device")(Errno::NODEV)),
            Ok(_) => {
                read(&watch, &mut [0; 4096]).map_err(system("watch /dev"))?;
            }
            Err(Errno::INTR) => {}
            Err(errno) => return Err(system("watch /dev")(errno)),
        }
    }
    Ok(path)
}

/// Opens a port of the host; the kernel shows its file a moment before it can be opened.
fn open_port(name: &str) -> Result<OwnedFd, GuestError> {
    let path = await_device(name)?;
    let mut tries = PORT_TRIES;
    loop {
        match open(&path, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()) {
            Err(Errno::NXIO) if tries > 0 => std::thread::sleep(PORT_PAUSE),
            opened => return opened.map_err(system("open a serial port")),
        }
        tries -= 1;
    }
}

/// Says that this machine may be copied, and waits for the order of the copy.
fn wait_as_template(door: &Door, woken_at_ns: &mut u64) -> Result<Vec<u8>, GuestError> {
    let boot_id = std::fs::read_to_string(BOOT_ID).unwrap_or_default();
    match door {
        Door::Port => {
            let port = open_port(ORDER_PORT)?;
            let said = converse(&port, &boot_id, woken_at_ns)?;
            // Not over the port, which may be closed by now.
            sys::machine_prove(boot_id.as_bytes());
            Ok(said)
        }
        // The connection over which the template was seen to wait is none of its copies'.
        Door::Vsock(port) => loop {
            let host = sys::accept_vsock(port + 1).map_err(system("accept on vsock"))?;
            if let Ok(said) = converse(&host, &boot_id, woken_at_ns) {
                return Ok(said);
            }
        },
    }
}

/// Tells the host what every copy of one template has in common, and reads the order.
fn converse(host: &OwnedFd, boot_id: &str, woken_at_ns: &mut u64) -> Result<Vec<u8>, GuestError> {
    write(host, boot_id.as_bytes()).map_err(system("write to the order's port"))?;
    let mut said = Vec::new();
    let mut chunk = [0; 4096];
    while !said.ends_with(b"\n") {
        let count = read(host, &mut chunk).map_err(system("read the order"))?;
        if said.is_empty() {
            *woken_at_ns = sys::monotonic_ns();
        }
        if count == 0 || said.len() > ORDER_BYTES_MAX {
            return Err(bad("the order ended before its line did"));
        }
        said.extend_from_slice(&chunk[..count]);
    }
    Ok(said)
}

fn parse_said(said: &[u8]) -> Result<(Order, Vec<OsString>), GuestError> {
    let line = said.strip_suffix(b"\n").unwrap_or(said);
    let mut parts = line.splitn(2, |byte| *byte == b' ');
    let order = Order::parse(parts.next().unwrap_or_default())?;
    if order.is_template {
        return Err(bad("a copy cannot be a template"));
    }
    Ok((order, parse_role(parts.next().unwrap_or_default())?))
}

/// The words of a role as they are written where they may hold nothing special.
fn parse_role(role: &[u8]) -> Result<Vec<OsString>, GuestError> {
    if role.is_empty() {
        return Ok(Vec::new());
    }
    role.split(|byte| *byte == b'+').map(parse_word).collect()
}

fn parse_word(word: &[u8]) -> Result<OsString, GuestError> {
    let mut bytes = Vec::with_capacity(word.len());
    let mut rest = word;
    while let Some((byte, behind)) = rest.split_first() {
        rest = behind;
        if *byte != b'%' {
            bytes.push(*byte);
            continue;
        }
        let digits = rest.split_at_checked(2);
        let decoded = digits.and_then(|(pair, behind)| {
            rest = behind;
            u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()
        });
        bytes.push(decoded.ok_or_else(|| bad("a % in the role without two hex digits"))?);
    }
    Ok(OsStr::from_bytes(&bytes).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<Order, String> {
        Order::parse(text.as_bytes()).map_err(|error| error.to_string())
    }

    #[test]
    fn orders_are_read() {
        assert_eq!(
            parsed("channel=vsock:5000,address=10.77.0.2/30,data=vda"),
            Ok(Order {
                door: Door::Vsock(5000),
                address: Some((Ipv4Addr::new(10, 77, 0, 2), 30)),
                data: Some("vda".to_owned()),
                tools: None,
                modules: Vec::new(),
                is_template: false,
            })
        );
        let plain = parsed("channel=port,template,modules=virtio:virtio_mmio").unwrap();
        assert_eq!(plain.modules, ["virtio", "virtio_mmio"]);
        assert!(plain.is_template);
        assert_eq!((plain.door, plain.address), (Door::Port, None));
    }

    #[test]
    fn mistakes_in_an_order_are_named() {
        for (text, expected) in [
            ("channel=tcp:1", "expected port or vsock:PORT"),
            ("address=10.0.0.1", "expected IP/BITS"),
            ("address=10.0.0.1/33", "expected IP/BITS"),
            ("data=../x", "data=../x"),
            ("modules=a:../b", "modules=a:../b"),
            ("fast", "expected channel="),
        ] {
            let message = parsed(text).unwrap_err();
            assert!(message.contains(expected), "{text:?} gave {message:?}");
        }
    }

    #[test]
    fn a_copy_reads_its_order_and_role() {
        let (order, words) = parse_said(b"address=10.0.2.15/24 serve+a%20%2B+\n").unwrap();
        assert_eq!(order.address, Some((Ipv4Addr::new(10, 0, 2, 15), 24)));
        assert_eq!(words, ["serve", "a +", ""]);
        for wrong in [
            &b"template idle\n"[..],
            b"channel=port a%2\n",
            b"channel=port %zz\n",
        ] {
            assert!(parse_said(wrong).is_err());
        }
    }
}
