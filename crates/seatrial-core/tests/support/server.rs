//! A small real server for tests: one thread a connection, blocking.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use seatrial_core::wire::{HEADER_BYTES, Reply, RequestHeader, Status, append_payload, checksum};

/// What the server does with a connection; it ends when this returns.
pub type Serve = fn(&mut dyn Stream, usize);

/// A connected stream of any family.
pub trait Stream: Read + Write + Send {}
impl<T: Read + Write + Send> Stream for T {}

/// Runs until it is dropped; every thread is joined by then.
pub struct Server {
    pub target: String,
    stop: Arc<AtomicBool>,
    wake: Box<dyn Fn()>,
    acceptor: Option<JoinHandle<()>>,
    path: Option<PathBuf>,
}

impl Server {
    pub fn tcp(serve: Serve) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address: SocketAddr = listener.local_addr().unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&stop);
        let acceptor = std::thread::spawn(move || {
            let next = || {
                let (stream, _) = listener.accept()?;
                // Without it the second byte of a reply waits for the client's delayed acknowledgement.
                stream.set_nodelay(true).map(|()| stream)
            };
            let end: fn(&TcpStream) = |stream| drop(stream.shutdown(Shutdown::Both));
            accept_until(&flag, next, TcpStream::try_clone, end, serve);
        });
        let wake = Box::new(move || drop(TcpStream::connect(address)));
        Self {
            target: format!("tcp://{address}"),
            stop,
            wake,
            acceptor: Some(acceptor),
            path: None,
        }
    }

    pub fn unix(name: &str, serve: Serve) -> Self {
        let file = format!("seatrial-{}-{name}.sock", std::process::id());
        let path = std::env::temp_dir().join(file);
        let listener = UnixListener::bind(&path).unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&stop);
        let acceptor = std::thread::spawn(move || {
            let next = || listener.accept().map(|(stream, _)| stream);
            let end: fn(&UnixStream) = |stream| drop(stream.shutdown(Shutdown::Both));
            accept_until(&flag, next, UnixStream::try_clone, end, serve);
        });
        let to_wake = path.clone();
        let wake = Box::new(move || drop(UnixStream::connect(&to_wake)));
        let target = format!("unix://{}", Path::display(&path));
        Self {
            target,
            stop,
            wake,
            acceptor: Some(acceptor),
            path: Some(path),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        (self.wake)();
        self.acceptor.take().unwrap().join().unwrap();
        if let Some(path) = &self.path {
            std::fs::remove_file(path).unwrap();
        }
    }
}

/// Serves every connection on a thread of its own until `stop`, then ends and joins them all.
fn accept_until<S: Stream + 'static>(
    stop: &AtomicBool,
    next: impl Fn() -> std::io::Result<S>,
    copy: fn(&S) -> std::io::Result<S>,
    end: fn(&S),
    serve: Serve,
) {
    let mut open = Vec::new();
    while let Ok(mut stream) = next() {
        if stop.load(Ordering::Acquire) {
            break;
        }
        let handle = copy(&stream).unwrap();
        let number = open.len();
        let thread = std::thread::spawn(move || {
            serve(&mut stream, number);
            end(&stream);
        });
        open.push((handle, thread));
    }
    for (handle, thread) in open {
        end(&handle);
        thread.join().unwrap();
    }
}

/// Bytes back as they came.
pub fn echo(stream: &mut dyn Stream, _number: usize) {
    let mut buffer = [0; 4096];
    while let Ok(count) = stream.read(&mut buffer) {
        if count == 0 || stream.write_all(&buffer[..count]).is_err() {
            return;
        }
    }
}

/// One request, or `None` at the end of the stream.
pub fn read_request(stream: &mut dyn Stream) -> Option<RequestHeader> {
    let mut header = [0; HEADER_BYTES];
    stream.read_exact(&mut header).ok()?;
    let header = RequestHeader::decode(&header).unwrap();
    let mut payload = vec![0; header.payload_bytes as usize];
    stream.read_exact(&mut payload).ok()?;
    Some(header)
}

/// The plain reply to a request, with the payload that it asks for.
pub fn reply_to(header: &RequestHeader, status: Status) -> Vec<u8> {
    let seed = header.request_id;
    let mut payload = Vec::new();
    append_payload(seed, header.reply_bytes as usize, &mut payload);
    let reply = Reply {
        value: checksum(&payload, seed),
        service_ns: 1,
        seed,
        payload_bytes: header.reply_bytes,
        ..Reply::plain(status, header.request_id)
    };
    [&reply.encode()[..], &payload].concat()
}

/// Answers each rpc request at once.
pub fn rpc(stream: &mut dyn Stream, _number: usize) {
    while let Some(header) = read_request(stream) {
        if stream.write_all(&reply_to(&header, Status::Ok)).is_err() {
            return;
        }
    }
}
