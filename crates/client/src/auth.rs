//! Bearer token on each call, and its renewal from a file or by its owner.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use tokio::sync::watch;
use tokio::time::Instant;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::{Request, Status};

use crate::Token;

/// Time after which a token file is read again.
const TOKEN_TTL: Duration = Duration::from_secs(30);

/// Interceptor that adds the `authorization` header. `Debug` does not print the token.
#[derive(Debug, Clone)]
pub struct Auth(Source);

#[derive(Debug, Clone)]
enum Source {
    None,
    Fixed(MetadataValue<Ascii>),
    File(Arc<File>),
    Renewed(watch::Receiver<SecretString>),
}

#[derive(Debug)]
struct File {
    path: PathBuf,
    read: Mutex<Option<(Instant, MetadataValue<Ascii>)>>,
}

impl Auth {
    /// Fails if the token file is unreadable.
    pub fn new(token: &Token) -> Result<Self, Status> {
        Ok(Self(match token {
            Token::None => Source::None,
            Token::Fixed(token) => Source::Fixed(header(token)?),
            Token::File(path) => {
                let file = File { path: path.clone(), read: Mutex::new(None) };
                file.header()?;
                Source::File(Arc::new(file))
            }
            Token::Renewed(token) => {
                header(&token.borrow())?;
                Source::Renewed(token.clone())
            }
        }))
    }
}

impl File {
    fn header(&self) -> Result<MetadataValue<Ascii>, Status> {
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, value)) = read.as_ref().filter(|(at, _)| at.elapsed() < TOKEN_TTL) {
            return Ok(value.clone());
        }
        match std::fs::read_to_string(&self.path) {
            Ok(text) => {
                let value = header(&SecretString::from(text))?;
                *read = Some((Instant::now(), value.clone()));
                Ok(value)
            }
            // The file may be missing for a moment while it is replaced; the last token may still be valid.
            Err(error) => read.as_ref().map(|(_, value)| value.clone()).ok_or_else(|| {
                Status::unauthenticated(format!(
                    "failed to read the token file {}: {error}",
                    self.path.display()
                ))
            }),
        }
    }
}

fn header(token: &SecretString) -> Result<MetadataValue<Ascii>, Status> {
    let mut value: MetadataValue<Ascii> = format!("Bearer {}", token.expose_secret().trim())
        .parse()
        .map_err(|_| Status::unauthenticated("the token contains characters that are invalid in a header"))?;
    value.set_sensitive(true);
    Ok(value)
}

impl Interceptor for Auth {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let value = match &self.0 {
            Source::None => return Ok(request),
            Source::Fixed(value) => value.clone(),
            Source::File(file) => file.header()?,
            Source::Renewed(token) => header(&token.borrow())?,
        };
        request.metadata_mut().insert("authorization", value);
        Ok(request)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn authorization(auth: &mut Auth) -> String {
        let request = auth.call(Request::new(())).unwrap();
        request.metadata().get("authorization").unwrap().to_str().unwrap().to_owned()
    }

    #[tokio::test(start_paused = true)]
    async fn renewed_token_file_is_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        assert!(Auth::new(&Token::File(path.clone())).is_err());
        std::fs::write(&path, "one\n").unwrap();
        let mut auth = Auth::new(&Token::File(path.clone())).unwrap();
        std::fs::write(&path, "two\n").unwrap();
        assert_eq!(authorization(&mut auth), "Bearer one");
        tokio::time::advance(TOKEN_TTL).await;
        assert_eq!(authorization(&mut auth), "Bearer two");
        std::fs::remove_file(&path).unwrap();
        tokio::time::advance(TOKEN_TTL).await;
        assert_eq!(authorization(&mut auth), "Bearer two");
    }

    #[test]
    fn replaced_token_is_sent_by_all_clones() {
        let (owner, token) = watch::channel(SecretString::from("one"));
        let auth = Auth::new(&Token::Renewed(token)).unwrap();
        let mut clone = auth.clone();
        assert_eq!(authorization(&mut clone), "Bearer one");
        owner.send_replace("two".into());
        assert_eq!(authorization(&mut clone), "Bearer two");
        assert!(!format!("{auth:?}").contains("two"));
    }

    #[test]
    fn debug_output_hides_token() {
        let token = Token::Fixed("hush".into());
        let auth = Auth::new(&token).unwrap();
        assert!(!format!("{token:?} {auth:?}").contains("hush"));
    }

    #[test]
    fn token_with_line_break_is_rejected() {
        assert!(Auth::new(&Token::Fixed("a\nb".into())).is_err());
    }
}
