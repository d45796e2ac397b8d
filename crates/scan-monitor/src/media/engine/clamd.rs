//! The client of clamd, the daemon of `ClamAV`: one command per connection, over a Unix socket or TCP.

use std::{io, path::PathBuf, str::FromStr, time::Duration};

use genfleet_core::options::ConfigError;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf},
    net::{TcpStream, UnixStream},
    time::timeout,
};

use super::verdict::{EngineError, Verdict, read_verdict};

/// The time-out of connecting.
const CONNECT: Duration = Duration::from_secs(5);
/// The time-out of a write, and of the answer after the last byte.
const SCAN: Duration = Duration::from_secs(60);
/// Time to wait for an answer after a write failed.
const LAST_WORDS: Duration = Duration::from_secs(5);
/// Maximum length of an answer.
const MOST_ANSWER_BYTES: usize = 4096;

/// The address of clamd.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ScannerAddress {
    /// The path of a Unix socket.
    Unix(PathBuf),
    /// Host and port.
    Tcp(String),
}

impl FromStr for ScannerAddress {
    type Err = ConfigError;

    fn from_str(written: &str) -> Result<Self, ConfigError> {
        let wrong = || {
            ConfigError::new(format!(
                "{written:?} is no address of a scanner: write unix:/run/clamav/clamd.ctl or tcp:host:3310"
            ))
        };
        match written.trim().split_once(':') {
            Some(("unix", path)) if path.starts_with('/') => Ok(Self::Unix(path.into())),
            Some(("tcp", address)) => {
                let (host, port) = address.rsplit_once(':').ok_or_else(wrong)?;
                let has_port = port.parse::<u16>().is_ok_and(|port| port > 0);
                if host.is_empty() || !has_port {
                    return Err(wrong());
                }
                Ok(Self::Tcp(address.to_owned()))
            }
            _ => Err(wrong()),
        }
    }
}

impl std::fmt::Display for ScannerAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Tcp(address) => write!(f, "tcp:{address}"),
        }
    }
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

type BoxStream = Box<dyn Stream>;

/// A scan whose bytes are being sent.
pub(crate) struct Instream {
    reader: ReadHalf<BoxStream>,
    writer: WriteHalf<BoxStream>,
    answer: Vec<u8>,
}

/// Asks for the version of the engine and of its database.
pub(crate) async fn version(address: &ScannerAddress) -> Result<String, EngineError> {
    let (mut reader, mut writer) = tokio::io::split(connect(address).await?);
    let asking = async {
        writer.write_all(b"zVERSION\0").await?;
        let mut answer = Vec::new();
        read_answer(&mut reader, &mut answer).await?;
        Ok::<_, io::Error>(answer)
    };
    let answer = match timeout(CONNECT, asking).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(error)) => return Err(EngineError::Gone(format!("{address} does not tell its version: {error}"))),
        Err(_) => return Err(EngineError::Gone(format!("{address} does not tell its version within 5 s"))),
    };
    match answer.split_last() {
        Some((0, text)) if !text.is_empty() => Ok(String::from_utf8_lossy(text).into_owned()),
        _ => Err(EngineError::Gone(format!("{address} answers, but not with a version: is it clamd?"))),
    }
}

/// Begins a scan.
pub(crate) async fn begin(address: &ScannerAddress) -> Result<Instream, EngineError> {
    let (reader, writer) = tokio::io::split(connect(address).await?);
    let mut scan = Instream { reader, writer, answer: Vec::new() };
    match scan.send(&[b"zINSTREAM\0"]).await? {
        None => Ok(scan),
        Some(_) => Err(EngineError::Failed("the engine answered before it was sent anything".to_owned())),
    }
}

impl Instream {
    /// Sends the next bytes. Returns the verdict if the engine gave one before the end.
    pub(crate) async fn write(&mut self, bytes: &[u8]) -> Result<Option<Verdict>, EngineError> {
        // A length of 0 ends the file.
        let Some(length) = u32::try_from(bytes.len()).ok().filter(|length| *length > 0) else { return Ok(None) };
        self.send(&[&length.to_be_bytes(), bytes]).await
    }

    /// Ends the file and waits for the verdict.
    pub(crate) async fn finish(mut self) -> Result<Verdict, EngineError> {
        if let Some(verdict) = self.send(&[&0_u32.to_be_bytes()]).await? {
            return Ok(verdict);
        }
        match timeout(SCAN, read_answer(&mut self.reader, &mut self.answer)).await {
            Ok(read) => self.judge(read),
            Err(_) => Err(EngineError::Failed("the engine gave no verdict within 60 s".to_owned())),
        }
    }

    /// Sends `parts` and reads at the same time, because the engine answers early when it accepts no more, and may
    /// close at once.
    async fn send(&mut self, parts: &[&[u8]]) -> Result<Option<Verdict>, EngineError> {
        let Self { reader, writer, answer } = self;
        let sending = async {
            for part in parts {
                writer.write_all(part).await?;
            }
            writer.flush().await
        };
        let sent = tokio::select! {
            biased;
            read = read_answer(reader, answer) => return self.judge(read).map(Some),
            sent = timeout(SCAN, sending) => sent,
        };
        match sent {
            Ok(Ok(())) => Ok(None),
            Ok(Err(error)) => {
                let read = timeout(LAST_WORDS, read_answer(reader, answer)).await;
                match read {
                    Ok(read) if !self.answer.is_empty() => self.judge(read).map(Some),
                    _ => Err(EngineError::Failed(format!("the connection to the engine broke: {error}"))),
                }
            }
            Err(_) => Err(EngineError::Failed("the engine took no bytes for 60 s".to_owned())),
        }
    }

    fn judge(&self, read: io::Result<()>) -> Result<Verdict, EngineError> {
        match read {
            Err(error) if self.answer.is_empty() => {
                Err(EngineError::Failed(format!("the connection to the engine broke: {error}")))
            }
            _ => read_verdict(&self.answer),
        }
    }
}

async fn connect(address: &ScannerAddress) -> Result<BoxStream, EngineError> {
    let connecting = async {
        Ok::<BoxStream, io::Error>(match address {
            ScannerAddress::Unix(path) => Box::new(UnixStream::connect(path).await?),
            ScannerAddress::Tcp(address) => {
                let stream = TcpStream::connect(address).await?;
                stream.set_nodelay(true)?;
                Box::new(stream)
            }
        })
    };
    match timeout(CONNECT, connecting).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) => Err(EngineError::Gone(format!("{address} cannot be connected to: {error}"))),
        Err(_) => Err(EngineError::Gone(format!("{address} cannot be connected to within 5 s"))),
    }
}

/// Reads until an answer is complete or the connection ends. Cancel-safe: the bytes are kept in `answer`.
async fn read_answer(reader: &mut (impl AsyncRead + Unpin), answer: &mut Vec<u8>) -> io::Result<()> {
    loop {
        if answer.last().is_some_and(|last| matches!(last, 0 | b'\n')) || answer.len() > MOST_ANSWER_BYTES {
            return Ok(());
        }
        let mut piece = [0; 512];
        match reader.read(&mut piece).await? {
            0 => return Ok(()),
            read => answer.extend_from_slice(&piece[..read]),
        }
    }
}

#[cfg(test)]
mod tests;
