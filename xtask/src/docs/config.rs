//! The configuration's page: every key of every component with its default, as `--print-config`
//! prints it.

use std::path::Path;

use super::MARK;
use super::cli::{HOME, run};

/// Components that are configured, and the prefix of their environment.
const COMPONENTS: &[(&str, &str)] = &[("server", "ROTA_SERVER_"), ("worker", "ROTA_WORKER_")];

/// The page.
pub(super) fn page(rota: &Path) -> anyhow::Result<String> {
    let mut text = format!(
        "{MARK}\n\n# Configuration\n\nDefaults come first, then a TOML file (`--config FILE`), then the environment, then flags. A key \
         in the\nenvironment has the component's prefix and is written in capitals; a `.` becomes `__`. Unknown keys are errors.\n\
         `--print-config` prints what holds in the end.\n"
    );
    for (component, prefix) in COMPONENTS {
        let config = run(rota, &[component, "--print-config"])?.replace(HOME, "~");
        text += &format!(
            "\n## rota {component}\n\nEnvironment: `{prefix}…`. Defaults:\n\n```toml\n{}\n```\n",
            config.trim()
        );
    }
    Ok(text)
}
