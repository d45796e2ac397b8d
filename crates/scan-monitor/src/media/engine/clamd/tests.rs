//! Against a daemon that is none, and does what clamd does only when something goes wrong. The real one is met in
//! `tests/it/media_scan.rs`.

use tokio::net::TcpListener;

use super::*;

/// A daemon that reads `reads` bytes of each connection, sends `answer` and closes.
async fn daemon(reads: usize, answer: &'static [u8]) -> ScannerAddress {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = ScannerAddress::Tcp(listener.local_addr().unwrap().to_string());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut taken = vec![0; reads];
                if stream.read_exact(&mut taken).await.is_ok() {
                    let _ = stream.write_all(answer).await;
                    let _ = stream.shutdown().await;
                }
            });
        }
    });
    address
}

/// Command, one piece of 4 bytes with its length, and the end.
const WHOLE: usize = 10 + 8 + 4;

async fn scan(address: &ScannerAddress) -> Result<Verdict, EngineError> {
    let mut scan = begin(address).await?;
    match scan.write(b"file").await? {
        Some(early) => Ok(early),
        None => scan.finish().await,
    }
}

#[tokio::test]
async fn the_verdict_is_that_of_the_answer() {
    assert_eq!(scan(&daemon(WHOLE, b"stream: OK\0").await).await, Ok(Verdict::Clean));
    let found = scan(&daemon(WHOLE, b"stream: Eicar FOUND\0").await).await;
    assert_eq!(found, Ok(Verdict::Malware("Eicar".to_owned())));
}

#[tokio::test]
async fn an_answer_that_is_cut_off_is_no_verdict() {
    for answer in [b"".as_slice(), b"stream: O", b"stream: OK", b"stream: Eicar FOUN"] {
        let result = scan(&daemon(WHOLE, answer).await).await;
        assert!(matches!(result, Err(EngineError::Failed(_))), "{answer:?}: {result:?}");
    }
}

#[tokio::test]
async fn an_answer_before_the_end_is_heard_although_the_daemon_takes_no_more() {
    let address = daemon(10 + 8, b"INSTREAM size limit exceeded. ERROR\0").await;
    let mut scan = begin(&address).await.unwrap();
    let mut verdict = scan.write(b"file").await.unwrap();
    while verdict.is_none() {
        verdict = scan.write(&vec![0; 64 * 1024]).await.unwrap();
    }
    assert_eq!(verdict, Some(Verdict::TooLarge));
}

#[tokio::test]
async fn a_daemon_that_is_not_there_is_gone_and_one_that_hangs_up_failed() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let free = ScannerAddress::Tcp(listener.local_addr().unwrap().to_string());
    drop(listener);
    for gone in [free, ScannerAddress::Unix("/nowhere/clamd.ctl".into())] {
        assert!(matches!(begin(&gone).await.map(drop), Err(EngineError::Gone(_))), "{gone}");
        assert!(matches!(version(&gone).await, Err(EngineError::Gone(_))), "{gone}");
    }
    let hangs_up = daemon(1, b"").await;
    assert!(matches!(scan(&hangs_up).await, Err(EngineError::Failed(_))));
}

#[tokio::test]
async fn the_version_is_what_the_daemon_says() {
    assert_eq!(version(&daemon(9, b"ClamAV 1.4.6\0").await).await, Ok("ClamAV 1.4.6".to_owned()));
    for no_version in [b"".as_slice(), b"\0", b"ClamAV 1.4"] {
        assert!(version(&daemon(9, no_version).await).await.is_err(), "{no_version:?}");
    }
}
