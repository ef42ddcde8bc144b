//! Network devices: which one has an address, and whether it stamps packets itself.
#![allow(unsafe_code)] // raw system calls; each with its reason

use std::ffi::CStr;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, BorrowedFd};

/// The name of a device, with its closing zero, as requests to the kernel carry it.
pub type DeviceName = [libc::c_char; libc::IFNAMSIZ];

/// The device that has this address; `None` when none has it.
///
/// # Errors
/// What the kernel said.
pub fn device_of(address: IpAddr) -> io::Result<Option<DeviceName>> {
    let mut first = std::ptr::null_mut();
    // SAFETY: `first` is valid for the write of one pointer.
    if unsafe { libc::getifaddrs(&raw mut first) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let mut found = None;
    let mut entry: *const libc::ifaddrs = first;
    while !entry.is_null() && found.is_none() {
        // SAFETY: `entry` is an element of the list that `getifaddrs` made, freed only below; its
        // name is a string that ends in zero, and its address is null or as long as its family says.
        let (own, name) = unsafe {
            let own = address_at((*entry).ifa_addr);
            (own, CStr::from_ptr((*entry).ifa_name))
        };
        if own == Some(address) {
            let mut device: DeviceName = [0; libc::IFNAMSIZ];
            let bytes = name.to_bytes();
            for (to, from) in device[..libc::IFNAMSIZ - 1].iter_mut().zip(bytes) {
                *to = libc::c_char::from_ne_bytes([*from]);
            }
            found = Some(device);
        }
        // SAFETY: as above.
        entry = unsafe { (*entry).ifa_next };
    }
    // SAFETY: the list came from `getifaddrs` and nothing points into it any more.
    unsafe { libc::freeifaddrs(first) };
    Ok(found)
}

/// The IP address at a pointer.
///
/// # Safety
/// The pointer is null, or points to a socket address as long as its family says.
unsafe fn address_at(pointer: *const libc::sockaddr) -> Option<IpAddr> {
    if pointer.is_null() {
        return None;
    }
    // SAFETY: see above; the reads do not need an alignment.
    unsafe {
        match i32::from(pointer.cast::<libc::sa_family_t>().read_unaligned()) {
            libc::AF_INET => {
                let address = pointer.cast::<libc::sockaddr_in>().read_unaligned();
                let octets = address.sin_addr.s_addr.to_ne_bytes();
                Some(Ipv4Addr::from(octets).into())
            }
            libc::AF_INET6 => {
                let address = pointer.cast::<libc::sockaddr_in6>().read_unaligned();
                Some(Ipv6Addr::from(address.sin6_addr.s6_addr).into())
            }
            _ => None,
        }
    }
}

/// Makes a device stamp every packet that it sends and receives (`SIOCSHWTSTAMP`); it stays so.
///
/// # Errors
/// What the kernel said: `EOPNOTSUPP` for a device that cannot, `EPERM` without `CAP_NET_ADMIN`.
pub fn stamp_in_hardware(fd: BorrowedFd<'_>, device: &DeviceName) -> io::Result<()> {
    let mut settings = libc::hwtstamp_config {
        flags: 0,
        tx_type: 1,   // HWTSTAMP_TX_ON
        rx_filter: 1, // HWTSTAMP_FILTER_ALL
    };
    let mut request = libc::ifreq {
        ifr_name: *device,
        ifr_ifru: libc::__c_anonymous_ifr_ifru {
            ifru_data: (&raw mut settings).cast(),
        },
    };
    // SAFETY: the request names a device and points to the settings, which the kernel may
    // change; both live during the call.
    let result = unsafe { libc::ioctl(fd.as_raw_fd(), libc::SIOCSHWTSTAMP, &raw mut request) };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::UdpSocket;
    use std::os::fd::AsFd;

    #[test]
    fn loopback_is_found_and_cannot_stamp() {
        let device = device_of(Ipv4Addr::LOCALHOST.into()).unwrap().unwrap();
        assert_eq!(
            device[..3],
            [b'l', b'o', 0].map(|byte| libc::c_char::from_ne_bytes([byte]))
        );
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        assert!(stamp_in_hardware(socket.as_fd(), &device).is_err());
    }

    #[test]
    fn an_address_of_nobody_is_not_found() {
        let documentation = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
        assert_eq!(device_of(documentation.into()).unwrap(), None);
    }
}
