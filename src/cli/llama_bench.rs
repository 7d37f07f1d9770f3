//! Options of llama-bench that people paste: what means nothing here is accepted and named, what would
//! change the meaning of the figures is refused with the reason.

use crate::error::{Error, Result};
use crate::model::BATCH;
use crate::record::rows::Format;
use std::ffi::OsString;

/// Its options of several letters behind a single dash, which are none of ours, and their long names.
const SHORT: [(&str, &str); 37] = [
    ("-pg", "--pg"),
    ("-ub", "--ubatch-size"),
    ("-ngl", "--n-gpu-layers"),
    ("-fa", "--flash-attn"),
    ("-fitt", "--fit-target"),
    ("-fitc", "--fit-ctx"),
    ("-ctk", "--cache-type-k"),
    ("-ctv", "--cache-type-v"),
    ("-mmp", "--mmap"),
    ("-oe", "--output-err"),
    ("-nkvo", "--no-kv-offload"),
    ("-sm", "--split-mode"),
    ("-mg", "--main-gpu"),
    ("-ts", "--tensor-split"),
    ("-ot", "--override-tensor"),
    ("-ncmoe", "--n-cpu-moe"),
    ("-nopo", "--no-op-offload"),
    ("-dio", "--direct-io"),
    ("-lm", "--load-mode"),
    ("-rpc", "--rpc"),
    ("-dev", "--device"),
    ("-embd", "--embeddings"),
    ("-hf", "--hf-repo"),
    ("-hfr", "--hf-repo"),
    ("-hff", "--hf-file"),
    ("-hft", "--hf-token"),
    // Of ik_llama.cpp.
    ("-gp", "--gp"),
    ("-rtr", "--run-time-repack"),
    ("-thp", "--transparent-huge-pages"),
    ("-tgb", "--threads-gen-batch"),
    ("-mla", "--mla-attn"),
    ("-mmq", "--mul-mat-q"),
    ("-fmoe", "--fused-moe"),
    ("-ser", "--smart-expert-reduction"),
    ("-amb", "--attn-max-batch"),
    ("-nr", "--no-repack"),
    ("-lzm", "--lazy-mode"),
];

/// An argument as this program has it: llama-bench also takes options of several letters behind a single dash, and
/// names with underscores.
pub fn ours(arg: OsString) -> OsString {
    if let Some((_, long)) = SHORT.iter().find(|(short, _)| arg == *short) {
        return long.into();
    }
    match arg.to_str().filter(|arg| arg.starts_with("--")) {
        Some(option) => {
            let (name, value) = option.split_at(option.find('=').unwrap_or(option.len()));
            format!("{}{value}", name.replace('_', "-")).into()
        }
        None => arg,
    }
}

/// See the module.
#[derive(Debug, clap::Args)]
pub struct LlamaBenchArgs {
    #[arg(short = 'b', long, hide = true)]
    batch_size: Option<String>,
    #[arg(long, hide = true)]
    ubatch_size: Option<String>,
    #[arg(long, hide = true, allow_hyphen_values = true)]
    n_gpu_layers: Option<String>,
    #[arg(long, hide = true)]
    flash_attn: Option<String>,
    #[arg(long, hide = true)]
    fit_target: Option<String>,
    #[arg(long, hide = true)]
    fit_ctx: Option<String>,
    #[arg(long, hide = true)]
    cache_type_k: Option<String>,
    #[arg(long, hide = true)]
    cache_type_v: Option<String>,
    #[arg(long, hide = true)]
    mmap: Option<String>,
    #[arg(long, hide = true)]
    no_kv_offload: Option<String>,
    #[arg(long, hide = true)]
    split_mode: Option<String>,
    #[arg(long, hide = true)]
    main_gpu: Option<String>,
    #[arg(long, hide = true)]
    tensor_split: Option<String>,
    #[arg(long, hide = true)]
    override_tensor: Option<String>,
    #[arg(long, hide = true)]
    n_cpu_moe: Option<String>,
    #[arg(long, hide = true)]
    no_op_offload: Option<String>,
    #[arg(long, hide = true)]
    direct_io: Option<String>,
    #[arg(long, hide = true)]
    load_mode: Option<String>,
    #[arg(long, hide = true)]
    rpc: Option<String>,
    #[arg(long, hide = true)]
    device: Option<String>,
    #[arg(long, hide = true)]
    embeddings: Option<String>,
    #[arg(long, hide = true)]
    hf_repo: Option<String>,
    #[arg(long, hide = true)]
    hf_file: Option<String>,
    #[arg(long, hide = true)]
    hf_token: Option<String>,
    #[arg(long, hide = true)]
    delay: Option<String>,
    #[arg(long, hide = true, allow_hyphen_values = true)]
    prio: Option<String>,
    #[arg(long, hide = true)]
    poll: Option<String>,
    #[arg(long, hide = true)]
    numa: Option<String>,
    #[arg(short = 'C', long, hide = true)]
    cpu_mask: Option<String>,
    #[arg(long, hide = true)]
    cpu_strict: Option<String>,
    #[arg(long, hide = true)]
    no_host: Option<String>,
    #[arg(long, hide = true)]
    gp: Option<String>,
    #[arg(long, hide = true)]
    run_time_repack: Option<String>,
    #[arg(long, hide = true)]
    transparent_huge_pages: Option<String>,
    #[arg(long, hide = true)]
    threads_gen_batch: Option<String>,
    #[arg(long, hide = true)]
    mla_attn: Option<String>,
    #[arg(long, hide = true)]
    mul_mat_q: Option<String>,
    #[arg(long, hide = true)]
    fused_moe: Option<String>,
    #[arg(long, hide = true)]
    smart_expert_reduction: Option<String>,
    #[arg(long, hide = true)]
    attn_max_batch: Option<String>,
    #[arg(long, hide = true, num_args = 0..=1, default_missing_value = "1")]
    no_repack: Option<String>,
    #[arg(long, hide = true, num_args = 0..=1, default_missing_value = "1")]
    repack: Option<String>,
    #[arg(long, hide = true)]
    lazy_mode: Option<String>,
    #[arg(long, hide = true)]
    progress: bool,
    #[arg(short, long, hide = true)]
    verbose: bool,
    #[arg(long, hide = true)]
    no_warmup: bool,
    #[arg(long, hide = true)]
    offline: bool,
    #[arg(long, hide = true)]
    list_devices: bool,
    /// Write the rows to standard error too, in this form
    #[arg(long, hide = true, value_name = "FORMAT")]
    pub output_err: Option<Format>,
}

impl LlamaBenchArgs {
    /// A sentence that names the options given that have no effect here.
    ///
    /// # Errors
    /// If one was given that would change what the figures mean.
    pub fn check(&self) -> Result<Option<String>> {
        // Option, its value, the values with which it says what is so here anyway, and why no other.
        let refused = [
            ("-ngl", &self.n_gpu_layers, &["0"][..], "tritmark measures CPUs and puts no layer on a GPU"),
            ("-ctk", &self.cache_type_k, &["f32"], "the cache of keys holds f32 here"),
            ("-ctv", &self.cache_type_v, &["f32"], "the cache of values holds f32 here"),
            ("-dev", &self.device, &["none"], "tritmark measures the CPU"),
            ("-embd", &self.embeddings, &["0"], "what is measured is text"),
            ("-hf", &self.hf_repo, &[], "nothing is downloaded here: name a model that is here with -m"),
            ("-hff", &self.hf_file, &[], "nothing is downloaded here: name a model that is here with -m"),
            ("-gp", &self.gp, &[], "generation after a prompt is asked for with -n and the depth -d"),
            ("-tgb", &self.threads_gen_batch, &[], "one number of threads reads prompts and generates: -t"),
            ("-rpc", &self.rpc, &[], "tritmark measures this machine alone"),
            ("--prio", &self.prio, &["0"], "set the priority from outside, e.g. with `nice`"),
            ("--numa", &self.numa, &[], "place the process from outside, e.g. with `numactl`"),
            ("-C", &self.cpu_mask, &["0x0"], "choose the CPUs from outside, e.g. with `taskset`"),
            ("--cpu-strict", &self.cpu_strict, &["0"], "choose the CPUs from outside, e.g. with `taskset`"),
        ];
        for (option, value, fine, why) in refused {
            if let Some(value) = value.as_ref().filter(|v| v.split(',').any(|v| !fine.contains(&v))) {
                return Err(Error::Usage(format!("{option} {value}: {why}; leave it out")));
            }
        }
        if self.list_devices {
            return Err(Error::Usage(
                "--list-devices: there is one device, this CPU; `tritmark doctor` tells what it can run"
                    .into(),
            ));
        }
        let given = [
            ("-b", self.batch_size.is_some()),
            ("-ub", self.ubatch_size.is_some()),
            ("-ngl", self.n_gpu_layers.is_some()),
            ("-fa", self.flash_attn.is_some()),
            ("-fitt", self.fit_target.is_some()),
            ("-fitc", self.fit_ctx.is_some()),
            ("-ctk", self.cache_type_k.is_some()),
            ("-ctv", self.cache_type_v.is_some()),
            ("-mmp", self.mmap.is_some()),
            ("-nkvo", self.no_kv_offload.is_some()),
            ("-sm", self.split_mode.is_some()),
            ("-mg", self.main_gpu.is_some()),
            ("-ts", self.tensor_split.is_some()),
            ("-ot", self.override_tensor.is_some()),
            ("-ncmoe", self.n_cpu_moe.is_some()),
            ("-nopo", self.no_op_offload.is_some()),
            ("-dio", self.direct_io.is_some()),
            ("-lm", self.load_mode.is_some()),
            ("-dev", self.device.is_some()),
            ("-embd", self.embeddings.is_some()),
            ("-hft", self.hf_token.is_some()),
            ("--delay", self.delay.is_some()),
            ("--prio", self.prio.is_some()),
            ("--poll", self.poll.is_some()),
            ("-C", self.cpu_mask.is_some()),
            ("--cpu-strict", self.cpu_strict.is_some()),
            ("--no-host", self.no_host.is_some()),
            ("-rtr", self.run_time_repack.is_some()),
            ("-thp", self.transparent_huge_pages.is_some()),
            ("-mla", self.mla_attn.is_some()),
            ("-mmq", self.mul_mat_q.is_some()),
            ("-fmoe", self.fused_moe.is_some()),
            ("-ser", self.smart_expert_reduction.is_some()),
            ("-amb", self.attn_max_batch.is_some()),
            ("-nr", self.no_repack.is_some()),
            ("--repack", self.repack.is_some()),
            ("--lazy-mode", self.lazy_mode.is_some()),
            ("--progress", self.progress),
            ("-v", self.verbose),
            ("--no-warmup", self.no_warmup),
            ("--offline", self.offline),
        ];
        let names: Vec<&str> = given.iter().filter(|(_, given)| *given).map(|(name, _)| *name).collect();
        Ok((!names.is_empty()).then(|| {
            format!(
                "without effect here: {} (a prompt is read in batches of {BATCH}, all arms are warmed up, and nothing leaves the CPU)",
                names.join(", ")
            )
        }))
    }
}
