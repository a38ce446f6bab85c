# What the frozen model makes of the training prompts and noises, once per plan; then one adapter per run and seed, or
# what a method that is not finetuned fits; or an adapter that was released elsewhere.


rule compute_originals:
    input:
        prompts=lambda job: STUDY.prompt_files(PLANS[job.plan][0]),
        backbone="results/{preset}/backbone",
        classifier=lambda job: loss_classifier(PLANS[job.plan][0]),
        clip="results/{preset}/encoders/training/clip",
        dino="results/{preset}/encoders/training/dino",
        face_embedding="results/{preset}/face_embedding",
    output:
        originals="results/{preset}/originals/{plan}.parquet",
    log:
        "results/{preset}/logs/compute_originals/{plan}.log",
    benchmark:
        "results/{preset}/benchmarks/compute_originals/{plan}.tsv"
    priority: 2  # finetuning, the longest job, waits for it
    conda:
        "../envs/distalign.yaml"
    threads: STUDY.preset.job.threads
    resources:
        **needs("compute_originals", mem_mb=32000, runtime=1440),
        gpu=STUDY.preset.job.gpu,
    params:
        spec=lambda job: Spec(STUDY.plan_spec(*PLANS[job.plan])),
        version=STAGES["originals"],
    message:
        "Originals of plan {wildcards.plan}"
    script:
        "../workflow_scripts/compute_originals.py"


# The longest jobs begin first, so that the last to end is a short one.
rule finetune:
    input:
        prompts=lambda job: STUDY.prompt_files(job.run),
        backbone="results/{preset}/backbone",
        originals=lambda job: f"results/{{preset}}/originals/{STUDY.plan_id(job.run, int(job.seed))}.parquet",
        classifier=lambda job: loss_classifier(job.run),
        clip="results/{preset}/encoders/training/clip",
        dino="results/{preset}/encoders/training/dino",
        face_embedding="results/{preset}/face_embedding",
        bank="results/{preset}/bank.safetensors",
        evaluation_classifier="results/{preset}/classifiers/evaluation/model.safetensors",
    output:
        spec="results/{preset}/runs/{run}/{seed}/spec.json",
        adapter=directory("results/{preset}/runs/{run}/{seed}/adapter"),
        train_log="results/{preset}/runs/{run}/{seed}/train_log.parquet",
        provenance="results/{preset}/runs/{run}/{seed}/provenance.json",
    log:
        "results/{preset}/logs/finetune/{run}/{seed}.log",
    benchmark:
        "results/{preset}/benchmarks/finetune/{run}/{seed}.tsv"
    wildcard_constraints:
        run=adapted_by(FINETUNED),
    priority: 2
    conda:
        "../envs/distalign.yaml"
    threads: STUDY.preset.job.threads
    resources:
        **needs("finetune", mem_mb=32000, runtime=2880),
        gpu=STUDY.preset.job.gpu,
    params:
        spec=lambda job: Spec(STUDY.finetune_spec(job.run, int(job.seed))),
        version=STAGES["finetune"],
    message:
        "Finetuning {wildcards.run}, seed {wildcards.seed}"
    script:
        "../workflow_scripts/finetune.py"


rule fit_method:
    input:
        **LOOKING,
        prompts=lambda job: STUDY.prompt_files(job.run),
        backbone="results/{preset}/backbone",
        classifier=lambda job: loss_classifier(job.run),
    output:
        spec="results/{preset}/runs/{run}/{seed}/spec.json",
        adapter=directory("results/{preset}/runs/{run}/{seed}/adapter"),
        train_log="results/{preset}/runs/{run}/{seed}/train_log.parquet",
        provenance="results/{preset}/runs/{run}/{seed}/provenance.json",
    log:
        "results/{preset}/logs/fit_method/{run}/{seed}.log",
    benchmark:
        "results/{preset}/benchmarks/fit_method/{run}/{seed}.tsv"
    wildcard_constraints:
        run=adapted_by(FITTED),
    priority: 1
    conda:
        "../envs/distalign.yaml"
    threads: STUDY.preset.job.threads
    resources:
        **needs("fit_method", mem_mb=32000, runtime=1440),
        gpu=STUDY.preset.job.gpu,
    params:
        spec=lambda job: Spec(STUDY.fit_spec(job.run, int(job.seed))),
        version=STAGES["fit"],
    message:
        "Fitting {wildcards.run}, seed {wildcards.seed}"
    script:
        "../workflow_scripts/fit_method.py"


# The archive is not among the inputs: it is looked for when the job runs, so that a dry run needs no download.
rule convert_adapter:
    input:
        backbone="results/{preset}/backbone",
    output:
        spec="results/{preset}/runs/{run}/{seed}/spec.json",
        adapter=directory("results/{preset}/runs/{run}/{seed}/adapter"),
        train_log="results/{preset}/runs/{run}/{seed}/train_log.parquet",
        provenance="results/{preset}/runs/{run}/{seed}/provenance.json",
    log:
        "results/{preset}/logs/convert_adapter/{run}/{seed}.log",
    benchmark:
        "results/{preset}/benchmarks/convert_adapter/{run}/{seed}.tsv"
    wildcard_constraints:
        run=adapted_by(CONVERTED),
    conda:
        "../envs/distalign.yaml"
    resources:
        **needs("convert_adapter", mem_mb=12000, runtime=30),
    params:
        spec=lambda job: Spec(STUDY.fit_spec(job.run, int(job.seed))),
        version=STAGES["method released"],
    message:
        "Released adapter of {wildcards.run}, seed {wildcards.seed}"
    script:
        "../workflow_scripts/convert_adapter.py"
