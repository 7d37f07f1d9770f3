//! What a record says of a model and of a subject.

use super::{Arm, Model, Outcome, Record, Subject, Test};
use crate::checkpoint::Checkpoint;
use crate::checkpoint::role::{LayerRole, Role};
use std::fmt;
use std::path::Path;

impl Model {
    /// Describes an opened checkpoint whose [`model_hash`](crate::verify::model_hash) is `hash`.
    pub fn describe(checkpoint: &Checkpoint, hash: String) -> Self {
        let provenance = &checkpoint.provenance;
        let weights = checkpoint
            .tensors()
            .iter()
            .filter(|t| t.role.is_some() && !matches!(t.role, Some(Role::Layer(_, LayerRole::Scale(_)))));
        Self {
            id: Self::id_of(checkpoint),
            name: provenance.name.clone(),
            family: format!("{}, {}", provenance.family, provenance.scale_rule),
            dialect: provenance.dialect.clone(),
            hash,
            config: checkpoint.config.clone(),
            params: weights.map(|t| t.shape.iter().product::<usize>() as u64).sum(),
            linear_params: checkpoint.config.linear_params(),
            file_bytes: checkpoint.tensors().iter().map(|t| t.bytes).sum(),
            post_training: provenance.post_training,
        }
    }

    /// With a number behind its name where one of the others has that name: files in several places may.
    pub fn named_beside(mut self, others: &[Model]) -> Self {
        let name = self.id.clone();
        let mut count = 2;
        while others.iter().any(|m| m.id == self.id) {
            self.id = format!("{name} ({count})");
            count += 1;
        }
        self
    }

    /// What arms call a checkpoint: the last part of its name, since records may travel and a path
    /// would tell whose machine it was.
    pub fn id_of(checkpoint: &Checkpoint) -> String {
        let name = &checkpoint.provenance.name;
        let id = std::path::Path::new(name).file_name().unwrap_or(name.as_ref());
        id.to_string_lossy().into_owned()
    }
}

impl Arm {
    /// Nothing measured so far.
    pub fn new(subject: Subject, test: Test) -> Self {
        Self {
            subject,
            test,
            imported: None,
            speed: None,
            accuracy: None,
            choices: None,
            energy_measured: None,
            energy_modelled: None,
            energy_rated: None,
        }
    }
}

impl Record {
    /// Leaves out what tells whose machine it was: the host's name, and paths.
    pub fn anonymise(&mut self) {
        self.environment.anonymise();
        for model in &mut self.models {
            for text in self.notes.iter_mut().chain([&mut self.command]) {
                *text = text.replace(&model.name, &model.id);
            }
            model.name = model.id.clone();
        }
        self.command = without_paths(&self.command);
        for arm in &mut self.arms {
            match &mut arm.energy_measured {
                Some(Outcome::NotMeasured(reason)) => shorten_paths(reason),
                Some(Outcome::Measured(energy)) => energy.warnings.iter_mut().for_each(shorten_paths),
                None => {}
            }
        }
        self.notes.iter_mut().for_each(shorten_paths);
        if let Some(text) = &mut self.suite_text {
            *text = without_folders(text);
        }
    }
}

/// Leaves of the paths in a sentence the last part, and all of what every system has: `/sys/class/…`.
pub(crate) fn shorten_paths(sentence: &mut String) {
    let shorten = |word: &str| {
        let path = word.trim_start_matches(['`', '\'', '"', '(']);
        let front = &word[..word.len() - path.len()];
        let known = ["/sys/", "/proc/"].into_iter().find_map(|dir| path.find(dir));
        let shown = match (known, path.strip_prefix('/').and_then(|p| p.rsplit('/').next())) {
            (Some(at), _) => &path[at..],
            (None, Some(name)) if !name.is_empty() => name,
            _ => path,
        };
        format!("{front}{shown}")
    };
    *sentence = sentence.split(' ').map(shorten).collect::<Vec<_>>().join(" ");
}

/// A text of which every word that begins like a path to a folder keeps the last part alone.
fn without_folders(text: &str) -> String {
    let mut quote = None;
    let ends = |c: char| match quote {
        _ if c == '\n' => {
            quote = None;
            true
        }
        Some(open) => {
            quote = quote.filter(|_| c != open);
            quote.is_none()
        }
        None => {
            quote = matches!(c, '"' | '\'').then_some(c);
            quote.is_some() || c.is_whitespace() || matches!(c, ',' | '[' | ']' | '(' | ')' | '=')
        }
    };
    let word = |word: &str| {
        let path = ["/", "./", "../", "~"].iter().any(|start| word.starts_with(start));
        let name = word.rsplit('/').next().filter(|_| path);
        name.unwrap_or(word).to_owned()
    };
    text.split_inclusive(ends).map(word).collect()
}

/// A command line with the last part of each path in place of it.
fn without_paths(command: &str) -> String {
    let mut quoted = false;
    let words = command.split(|c: char| {
        quoted ^= c == '\'';
        c == ' ' && !quoted
    });
    let words = words.map(|word| {
        // `--option=path` is one word.
        let (option, value) = match word.split_once('=') {
            Some((option, value)) if option.starts_with('-') => (&word[..option.len() + 1], value),
            _ => ("", word),
        };
        let path = Path::new(value.trim_matches('\''));
        let exists = |path: &Path| !path.as_os_str().is_empty() && path.exists();
        // A kernel, `i2_s/avx2`, looks like a path but leads nowhere.
        let is_path = path.is_absolute() || exists(path) || path.parent().is_some_and(exists);
        match path.file_name().filter(|_| is_path) {
            Some(name) => format!("{option}{}", name.to_string_lossy()),
            None => word.to_owned(),
        }
    });
    words.collect::<Vec<_>>().join(" ")
}

impl Subject {
    /// A loaded model; `model` is its [`Model::id`].
    pub fn of(model: &str, loaded: &crate::model::Model) -> Self {
        let kernel = loaded.kernel();
        let (layout, tier) =
            kernel.split_once('/').map_or((None, None), |(l, t)| (Some(l.to_owned()), Some(t.to_owned())));
        Self {
            model: model.into(),
            engine: "tritmark".into(),
            layout,
            tier,
            variant: loaded.variant(),
            threads: loaded.threads() as u32,
        }
    }

    /// The candle reference, which runs on all threads.
    #[cfg(feature = "reference")]
    pub fn candle(model: &str, mode: crate::reference::ActivationMode) -> Self {
        use crate::reference::ActivationMode;
        let activations = match mode {
            ActivationMode::Int8 => "int8 activations",
            ActivationMode::Full => "full activations",
        };
        Self {
            model: model.into(),
            engine: "candle".into(),
            layout: None,
            tier: None,
            variant: Some(activations.into()),
            threads: std::thread::available_parallelism().map_or(1, usize::from) as u32,
        }
    }

    /// Precision that the output head was rounded to, where it was.
    pub fn head(&self) -> Option<&str> {
        self.variant.as_deref()?.split(", ").find_map(|v| v.strip_prefix("head "))
    }

    /// Bits of a weight of the blocks' matrices, for a full-precision model of ours.
    pub fn float_bits(&self) -> Option<u32> {
        if self.engine != "tritmark" || self.layout.is_some() {
            return None;
        }
        match self.variant.as_deref()?.split(", ").next()? {
            "f32" => Some(32),
            "f16" | "bf16" => Some(16),
            _ => None,
        }
    }

    /// `layout/tier`, or the engine where it has no kernels of ours.
    pub fn kernel(&self) -> String {
        match (&self.layout, &self.tier) {
            (Some(layout), Some(tier)) => format!("{layout}/{tier}"),
            _ => self.engine.clone(),
        }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.engine)?;
        if let Some(layout) = &self.layout {
            write!(f, " {layout}")?;
        }
        if let Some(tier) = &self.tier {
            write!(f, "/{tier}")?;
        }
        if let Some(variant) = &self.variant {
            write!(f, ", {variant}")?;
        }
        write!(f, ", {} thread{}", self.threads, if self.threads == 1 { "" } else { "s" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sentences_keep_what_every_system_has_and_lose_paths() {
        let mut text = "/home/me/root/sys/class/powercap/*/energy_uj is closed; `sudo chmod a+r \
                        /home/me/root/sys/class/x`, or '/home/me/m.csv' at 3 J/token with i2_s/avx2"
            .to_owned();
        shorten_paths(&mut text);
        let expected = "/sys/class/powercap/*/energy_uj is closed; `sudo chmod a+r /sys/class/x`, or 'm.csv' at \
                        3 J/token with i2_s/avx2";
        assert_eq!(text, expected);
    }

    #[test]
    fn commands_keep_kernels_and_lose_paths() {
        let command = "tritmark bench -k i2_s/avx2 --record /home/me/r.json --meter='/home/me/my logs/m.csv' -o md \
                       -m src/lib.rs '/home/me/a b.gguf'";
        let expected = "tritmark bench -k i2_s/avx2 --record r.json --meter=m.csv -o md -m lib.rs a b.gguf";
        assert_eq!(without_paths(command), expected);
    }

    #[test]
    fn suites_keep_their_settings_and_lose_folders() {
        let text = "models = [\"/home/me/my models/a.gguf\", \"demo\", '../b/c.gguf'] # of ~/x/y, 3 GB/s\n\
                    # the model's text\ntext=\"./d/e.txt\"\n";
        let expected = "models = [\"a.gguf\", \"demo\", 'c.gguf'] # of y, 3 GB/s\n# the model's text\n\
                        text=\"e.txt\"\n";
        assert_eq!(without_folders(text), expected);
    }
}
