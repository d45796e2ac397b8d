//! The verdict of an engine on a file. Pure.

/// The verdict of an engine on a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Nothing was found, and the engine scanned the whole file.
    Clean,
    /// Malware with this name was found.
    Malware(String),
    /// The engine gave up at one of its limits, with the engine's name for it.
    Unscannable(String),
    /// The file is encrypted, with the engine's name for it.
    Encrypted(String),
    /// The file is longer than the engine accepts.
    TooLarge,
}

/// The reason why there is no verdict.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum EngineError {
    /// The engine cannot be reached.
    #[error("{0}")]
    Gone(String),
    /// The engine was reached but returned no verdict.
    #[error("{0}")]
    Failed(String),
}

/// Maximum length of a threat's name. Longer names are cut.
const MOST_NAME_CHARS: usize = 200;

/// Parses the answer of clamd to `INSTREAM`. An answer without its final NUL is incomplete.
pub(super) fn read_verdict(answer: &[u8]) -> Result<Verdict, EngineError> {
    let Some((0, text)) = answer.split_last() else {
        let text = String::from_utf8_lossy(answer);
        let why = match text.trim() {
            "" => "the engine closed the connection without a verdict".to_owned(),
            whole @ "COMMAND READ TIMED OUT" => format!("the engine answered {whole:?}: the bytes came too slowly"),
            part => format!("the engine's answer was cut off after {part:.100?}"),
        };
        return Err(EngineError::Failed(why));
    };
    let text = String::from_utf8_lossy(text);
    let text = text.trim();
    if text == "INSTREAM size limit exceeded. ERROR" {
        return Ok(Verdict::TooLarge);
    }
    let reply = text.strip_prefix("stream: ");
    if reply == Some("OK") {
        return Ok(Verdict::Clean);
    }
    let Some(name) = reply.and_then(|reply| reply.strip_suffix(" FOUND")) else {
        return Err(EngineError::Failed(format!("the engine answered {text:.200?}")));
    };
    let name: String = name.chars().filter(|each| !each.is_control()).take(MOST_NAME_CHARS).collect();
    Ok(if name.starts_with("Heuristics.Limits.Exceeded") {
        Verdict::Unscannable(name)
    } else if name.starts_with("Heuristics.Encrypted") {
        Verdict::Encrypted(name)
    } else {
        Verdict::Malware(name)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_answer_of_clamd_has_its_meaning() {
        let malware = |name: &str| Ok(Verdict::Malware(name.to_owned()));
        let table: [(&[u8], Result<Verdict, ()>); 14] = [
            (b"stream: OK\0", Ok(Verdict::Clean)),
            (b"stream: Eicar-Test.UNOFFICIAL FOUND\0", malware("Eicar-Test.UNOFFICIAL")),
            (b"stream: Heuristics.Phishing.Email FOUND\0", malware("Heuristics.Phishing.Email")),
            (
                b"stream: Heuristics.Limits.Exceeded.MaxRecursion FOUND\0",
                Ok(Verdict::Unscannable("Heuristics.Limits.Exceeded.MaxRecursion".to_owned())),
            ),
            (
                b"stream: Heuristics.Encrypted.Zip FOUND\0",
                Ok(Verdict::Encrypted("Heuristics.Encrypted.Zip".to_owned())),
            ),
            (b"INSTREAM size limit exceeded. ERROR\0", Ok(Verdict::TooLarge)),
            (b"COMMAND READ TIMED OUT\n", Err(())),
            (b"UNKNOWN COMMAND\0", Err(())),
            (b"stream: Can't allocate memory ERROR\0", Err(())),
            (b"", Err(())),
            (b"stream: OK", Err(())),
            (b"stream: Eicar-Test.UNOFF", Err(())),
            (b"\0", Err(())),
            (b"OK\0", Err(())),
        ];
        for (answer, expected) in table {
            let read = read_verdict(answer);
            assert_eq!(read.clone().map_err(drop), expected, "{read:?}");
        }
    }

    #[test]
    fn a_name_is_bounded_and_printable() {
        let answer = format!("stream: A\u{7}{} FOUND\0", "b".repeat(300));
        let Ok(Verdict::Malware(name)) = read_verdict(answer.as_bytes()) else { panic!("no malware") };
        assert_eq!((name.chars().count(), name.starts_with("Ab")), (MOST_NAME_CHARS, true));
    }
}
