//! Checks of this machine: files, their permissions, programs.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rota_client::Token;
use rota_client::discover::{self, Config, Contexts, Found, Origin};
use rota_telemetry::env;

use super::Check;
use crate::globals::Globals;
use crate::output::count;

/// Checks that the config file is valid, and private if it holds a token.
pub fn config(globals: &Globals) -> Vec<Check> {
    let given = globals.flags().config.or_else(|| env::var_os("ROTA_CONFIG").map(PathBuf::from));
    let (path, named) = given.map_or_else(|| (discover::config_file(), false), |path| (path, true));
    let mut checks = config_at(&path, named);
    checks.extend(contexts_at(&discover::contexts_file()));
    checks
}

/// Checks the file of contexts, if there is one.
fn contexts_at(path: &Path) -> Option<Check> {
    let shown = path.display();
    if !path.exists() {
        return None;
    }
    Some(match Contexts::read(path) {
        Err(error) => Check::fail("contexts", error.to_string(), "correct the file, or remove it"),
        Ok(_) if is_open(path) => Check::warn(
            "contexts",
            format!("{shown} is readable by other users"),
            format!("chmod 600 {shown}"),
        ),
        Ok(contexts) => {
            let current =
                contexts.current.map_or("none is current".to_owned(), |name| format!("{name} is current"));
            let number = contexts.named.len();
            Check::ok("contexts", format!("{} in {shown}, {current}", count(number as i64, "context")))
        }
    })
}

fn config_at(path: &Path, named: bool) -> Vec<Check> {
    let shown = path.display();
    if !named && !path.exists() {
        return vec![Check::ok("config", format!("no config file at {shown} (optional)"))];
    }
    let config = match Config::read(path, named) {
        Ok(config) => config,
        Err(error) => {
            let hint = "valid keys are endpoint, token, token_file, ca and namespace";
            return vec![Check::fail("config", error.to_string(), hint)];
        }
    };
    if config.token.is_some() && is_open(path) {
        let message = format!("{shown} holds a token and is readable by other users");
        return vec![Check::warn("config", message, format!("chmod 600 {shown}"))];
    }
    vec![Check::ok("config", format!("{shown} is valid"))]
}

/// Checks whether attempts of workers on this machine, started by this user, are isolated.
pub fn isolation() -> Check {
    match rota_worker::supervise::unsupported_jail() {
        None => Check::ok("isolation", "attempts of local workers are confined by Landlock and seccomp"),
        Some(reason) => Check::warn(
            "isolation",
            format!("attempts of local workers are not isolated: {reason}"),
            "run workers as an ordinary user on Linux 6.12 or newer",
        ),
    }
}

/// Reports whether workers that are started like this command could limit their attempts by control groups.
pub fn control_groups() -> Check {
    Check::ok(
        "control groups",
        match rota_worker::supervise::not_delegated() {
            None => {
                "attempts of a worker that is started here have memory and processes of their own".to_owned()
            }
            Some(reason) => {
                format!("attempts of a worker that is started here share memory and processes: {reason}")
            }
        },
    )
}

/// Reports the selected server and checks its token.
pub fn server(found: &Found) -> Vec<Check> {
    let named = || format!("from the context {}", found.context.as_deref().unwrap_or_default());
    let source = match found.origin {
        Origin::Context => &named(),
        Origin::Flag => "from --endpoint or --kube",
        Origin::Environment => "from ROTA_ENDPOINT",
        Origin::Config => "from the config file",
        Origin::Dev => "the `rota dev` on this machine",
        Origin::Default => "the default",
    };
    let endpoint = &found.options.endpoint;
    let mut checks =
        vec![Check::ok("server", format!("{endpoint}, {source}; namespace {}", found.namespace))];
    if found.options.exposes_token() {
        let message = format!("the token is sent to {endpoint} unencrypted");
        checks.push(Check::warn("tls", message, "use https, with --ca for a private certificate authority"));
    }
    checks.push(match &found.options.token {
        Token::None => Check::ok("token", "none"),
        Token::Fixed(_) | Token::Renewed(_) if found.login.is_some() => {
            Check::ok("token", "of the login of the context")
        }
        Token::Fixed(_) | Token::Renewed(_) => {
            Check::ok("token", "from the environment, the context, the config file or the cluster")
        }
        Token::File(path) => token_file(path),
    });
    if let (Origin::Dev, Token::File(path)) = (&found.origin, &found.options.token) {
        checks.extend(path.parent().map(data_directory));
    }
    checks
}

fn token_file(path: &Path) -> Check {
    let shown = path.display();
    match std::fs::read_to_string(path) {
        Err(error) => Check::fail(
            "token",
            format!("failed to read {shown}: {error}"),
            "set another file with --token-file",
        ),
        Ok(text) if text.trim().is_empty() => Check::fail(
            "token",
            format!("{shown} is empty"),
            "write the token to this file, or set another one with --token-file",
        ),
        Ok(_) if is_open(path) => {
            let message = format!("{shown} is readable by other users");
            Check::warn("token", message, format!("chmod 600 {shown}"))
        }
        Ok(_) => Check::ok("token", format!("in {shown}, readable only by its owner")),
    }
}

/// Checks the directory of a `rota dev`, whose files are closed by it.
fn data_directory(folder: &Path) -> Check {
    let shown = folder.display();
    if is_open(folder) {
        let message = format!("{shown} can be opened by other users: an attempt may have changed its mode");
        return Check::warn("data", message, format!("chmod 700 {shown}, and start `rota dev` again"));
    }
    let key = folder.join("secrets.key");
    if is_open(&key) {
        let message =
            format!("{} has a mode that others could use: an attempt may have changed it", key.display());
        return Check::warn("data", message, format!("chmod 600 {}", key.display()));
    }
    Check::ok("data", format!("{shown} can be opened by its owner only"))
}

/// Whether other users can access a file. Always false in a cluster, since Kubernetes mounts secrets for a group.
fn is_open(path: &Path) -> bool {
    let in_cluster = env::var_os("KUBERNETES_SERVICE_HOST").is_some();
    std::fs::metadata(path).is_ok_and(|file| file.permissions().mode() & 0o077 != 0) && !in_cluster
}

/// Checks the Claude Code CLI of local workers.
pub async fn claude(programs: &[String]) -> Vec<Check> {
    let mut checks = Vec::new();
    for program in programs {
        let shown = if program.is_empty() { "claude" } else { program };
        checks.push(match rota_worker::runtimes::claude::version(program).await {
            Ok(version) => Check::ok("claude", format!("{shown} found, version {version}")),
            Err(error) => {
                let message = format!("failed to run {shown}, which agents of this namespace need: {error}");
                let hint = "install Claude Code, or set its path with `rota dev --claude-program`";
                // Only a warning: `rota dev` may use another program.
                Check::warn("claude", message, hint)
            }
        });
    }
    checks
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    fn file(folder: &Path, name: &str, text: &str, mode: u32) -> PathBuf {
        let path = folder.join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        path
    }

    #[test]
    fn file_permissions_are_checked() {
        let folder = tempfile::tempdir().unwrap();
        let at = folder.path();
        let verdict = |checks: Vec<Check>| checks[0].verdict;
        assert_eq!(verdict(config_at(&at.join("none"), false)), Verdict::Ok);
        assert_eq!(verdict(config_at(&at.join("none"), true)), Verdict::Fail);
        let wrong = config_at(&file(at, "wrong", "endpont = \"x\"\n", 0o600), true);
        assert!(wrong[0].verdict == Verdict::Fail && wrong[0].message.contains("endpont"), "{wrong:?}");
        let text = "token = \"t\"\n";
        assert_eq!(verdict(config_at(&file(at, "shut", text, 0o600), true)), Verdict::Ok);
        let open = config_at(&file(at, "open", text, 0o644), true);
        assert!(open[0].verdict == Verdict::Warn && open[0].hint.starts_with("chmod 600"), "{open:?}");
        let contexts = |text, mode| contexts_at(&file(at, "contexts.toml", text, mode)).unwrap();
        assert_eq!(contexts_at(&at.join("none")), None);
        assert_eq!(contexts("current = 'a'\n", 0o600).verdict, Verdict::Ok);
        assert_eq!(contexts("", 0o640).verdict, Verdict::Warn);
        assert_eq!(contexts("x", 0o600).verdict, Verdict::Fail);
        for (name, text, mode, verdict) in [
            ("t1", "secret", 0o600, Verdict::Ok),
            ("t2", "secret", 0o640, Verdict::Warn),
            ("t3", " \n", 0o600, Verdict::Fail),
        ] {
            assert_eq!(token_file(&file(at, name, text, mode)).verdict, verdict, "{name}");
        }
        assert_eq!(token_file(&at.join("none")).verdict, Verdict::Fail);
        let data = |mode, key| {
            file(at, "secrets.key", "x", key);
            std::fs::set_permissions(at, std::fs::Permissions::from_mode(mode)).unwrap();
            data_directory(at)
        };
        assert_eq!(data(0o700, 0o600).verdict, Verdict::Ok);
        assert!(data(0o700, 0o604).message.contains("secrets.key"));
        assert!(data(0o701, 0o600).hint.starts_with("chmod 700"));
    }
}
