//! The proxy before a server that says everything back.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use super::*;

const PATIENCE: Duration = Duration::from_secs(10);

fn loopback() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

/// A proxy before an echo.
fn echo() -> Proxy {
    let listener = TcpListener::bind(loopback()).unwrap();
    let upstream = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || io::copy(&mut (&stream), &mut (&stream)));
        }
    });
    Proxy::start(loopback(), upstream).unwrap()
}

fn connect(proxy: &Proxy) -> TcpStream {
    let stream = TcpStream::connect(proxy.address()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Says something and hears as much.
fn ask(stream: &mut TcpStream, said: &[u8]) -> io::Result<Vec<u8>> {
    stream.write_all(said)?;
    let mut heard = vec![0; said.len()];
    stream.read_exact(&mut heard)?;
    Ok(heard)
}

/// Says something and hears all until the end.
fn hear(stream: &mut TcpStream, said: &[u8]) -> (Vec<u8>, io::Result<()>) {
    stream.write_all(said).unwrap();
    let (mut heard, mut byte) = (Vec::new(), [0]);
    loop {
        match stream.read(&mut byte) {
            Ok(0) => return (heard, Ok(())),
            Ok(_) => heard.push(byte[0]),
            Err(error) => return (heard, Err(error)),
        }
    }
}

#[test]
fn bytes_pass_and_are_counted() {
    let proxy = echo();
    let mut stream = connect(&proxy);
    assert_eq!(ask(&mut stream, b"hello").unwrap(), b"hello");
    let tally = proxy.tally();
    assert_eq!((tally.request, tally.reply, tally.connections, tally.struck), (5, 5, 1, false));
}

#[test]
fn a_connection_is_cut_at_the_byte() {
    let proxy = echo();
    for how in [Cut::Close, Cut::Reset] {
        for at in 0..5 {
            let (mut stream, mut other) = (connect(&proxy), connect(&proxy));
            assert_eq!(ask(&mut other, b"other").unwrap(), b"other");
            proxy.set(Fault::Cut { way: Way::Reply, at, how }, PATIENCE);
            let (heard, end) = hear(&mut stream, b"hello");
            match how {
                Cut::Close => {
                    end.unwrap();
                    assert_eq!(heard, &b"hello"[..at as usize]);
                }
                // What was not read yet when a RST comes is lost.
                Cut::Reset => assert_eq!(end.unwrap_err().kind(), io::ErrorKind::ConnectionReset),
            }
            assert!(proxy.tally().struck);
            assert_eq!(ask(&mut other, b"other").unwrap(), b"other", "other connections live");
            proxy.set(Fault::Nothing, Duration::ZERO);
        }
    }
}

#[test]
fn a_bit_is_wrong_or_a_message_comes_twice() {
    let proxy = echo();
    let mut stream = connect(&proxy);
    proxy.set(Fault::Flip { way: Way::Request, at: 4 }, PATIENCE);
    assert_eq!(ask(&mut stream, b"hello").unwrap(), b"helln");
    assert_eq!(ask(&mut stream, b"hello").unwrap(), b"hello", "once");
    proxy.set(Fault::Twice { way: Way::Request, at: 1 }, PATIENCE);
    stream.write_all(b"hello").unwrap();
    let mut heard = [0; 10];
    stream.read_exact(&mut heard).unwrap();
    assert_eq!(&heard, b"hellohello");
}

#[test]
fn a_half_open_connection_says_nothing_and_ends_with_the_fault() {
    let proxy = echo();
    let (mut stream, mut other) = (connect(&proxy), connect(&proxy));
    proxy.set(Fault::Hold { way: Way::Reply, at: 2 }, PATIENCE);
    stream.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    let (heard, end) = hear(&mut stream, b"hello");
    assert_eq!((heard, end.unwrap_err().kind()), (b"he".to_vec(), io::ErrorKind::WouldBlock));
    assert_eq!(ask(&mut other, b"other").unwrap(), b"other");
    proxy.set(Fault::Nothing, Duration::ZERO);
    assert_eq!(stream.read(&mut [0]).unwrap(), 0);
    assert_eq!(ask(&mut other, b"other").unwrap(), b"other");
}

#[test]
fn silence_ends_by_itself() {
    let proxy = echo();
    let mut old = connect(&proxy);
    assert_eq!(ask(&mut old, b"hello").unwrap(), b"hello");
    proxy.set(Fault::Silence, Duration::from_millis(300));
    let mut new = connect(&proxy);
    let since = Instant::now();
    new.write_all(b"hello").unwrap();
    assert_eq!(hear(&mut old, b"hello").0, b"");
    assert!(matches!(new.read(&mut [0]), Ok(0) | Err(_)));
    assert!((Duration::from_millis(200)..PATIENCE).contains(&since.elapsed()));
    assert_eq!(ask(&mut connect(&proxy), b"hello").unwrap(), b"hello");
}

#[test]
fn what_is_refused_ends_at_once() {
    let proxy = echo();
    let mut old = connect(&proxy);
    assert_eq!(ask(&mut old, b"hello").unwrap(), b"hello");
    proxy.set(Fault::Refuse, PATIENCE);
    assert_eq!(old.read(&mut [0]).unwrap(), 0);
    assert!(matches!(connect(&proxy).read(&mut [0]), Ok(0) | Err(_)));
    proxy.set(Fault::Nothing, Duration::ZERO);
    assert_eq!(ask(&mut connect(&proxy), b"hello").unwrap(), b"hello");
}

#[test]
fn slowness_takes_its_time() {
    let proxy = echo();
    let mut stream = connect(&proxy);
    proxy.set(Fault::Slow { piece: 2, pause: Duration::from_millis(20) }, PATIENCE);
    let since = Instant::now();
    assert_eq!(ask(&mut stream, b"hello!").unwrap(), b"hello!");
    assert!(since.elapsed() >= Duration::from_millis(80));
}

#[test]
fn an_impostor_answers_its_own() {
    let proxy = echo();
    proxy.set(Fault::Impostor(b"HTTP/1.1 400".to_vec()), PATIENCE);
    let mut stream = connect(&proxy);
    stream.write_all(b"hello").unwrap();
    let mut heard = [0; 12];
    stream.read_exact(&mut heard).unwrap();
    assert_eq!(&heard, b"HTTP/1.1 400");
}

#[test]
fn a_recording_is_searched_and_said_again() {
    let listener = TcpListener::bind(loopback()).unwrap();
    let proxy = Proxy::start(loopback(), listener.local_addr().unwrap()).unwrap();
    proxy.record();
    connect(&proxy).write_all(b"a secret").unwrap();
    let first = io::read_to_string(listener.accept().unwrap().0).unwrap();
    assert!(proxy.has_passed(b"secret") && !proxy.has_passed(b"secrets"));
    let again = thread::spawn(move || {
        let mut heard = [0; 8];
        listener.accept().unwrap().0.read_exact(&mut heard).unwrap();
        heard
    });
    assert_eq!(proxy.replay().unwrap(), 8);
    assert_eq!((first.as_bytes(), again.join().unwrap()), (&b"a secret"[..], *b"a secret"));
}
