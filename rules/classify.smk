# What is seen in the images: faces, perceived attributes, similarity; then bias per prompt, and image quality.


localrules:
    compute_bias,


rule classify_images:
    input:
        prompts=lambda job: STUDY.prompt_file(job.evaluation),
        images="results/{preset}/images/{run}/{seed}/{evaluation}.parquet",
        originals=original_images,
        classifiers=expand(
            "results/{{preset}}/classifiers/{classifier}/model.safetensors",
            classifier=STUDY.preset.classifiers,
        ),
        clip="results/{preset}/encoders/evaluation/clip",
        dino="results/{preset}/encoders/evaluation/dino",
        reader="results/{preset}/reader.safetensors" if STUDY.preset.reader else [],
        face_embedding="results/{preset}/face_embedding" if STUDY.preset.reader else [],
        concept_reader=("results/{preset}/concept_reader" if STUDY.preset.concept_reader else []),
    output:
        classified="results/{preset}/classified/{run}/{seed}/{evaluation}.parquet",
        features="results/{preset}/features/{run}/{seed}/{evaluation}.parquet",
    log:
        "results/{preset}/logs/classify_images/{run}/{seed}/{evaluation}.log",
    benchmark:
        "results/{preset}/benchmarks/classify_images/{run}/{seed}/{evaluation}.tsv"
    conda:
        "../envs/distalign.yaml"
    threads: STUDY.preset.job.threads
    resources:
        **needs("classify_images", mem_mb=16000, runtime=240),
        gpu=STUDY.preset.job.gpu,
    params:
        spec=lambda job: Spec(STUDY.classify_spec(job.evaluation)),
        version=STAGES["classify"],
    message:
        "Faces and attributes in the images of {wildcards.run}, seed {wildcards.seed}"
    script:
        "../workflow_scripts/classify_images.py"


rule compute_bias:
    input:
        classified="results/{preset}/classified/{run}/{seed}/{evaluation}.parquet",
    output:
        bias="results/{preset}/bias/{run}/{seed}/{evaluation}.parquet",
    log:
        "results/{preset}/logs/compute_bias/{run}/{seed}/{evaluation}.log",
    benchmark:
        "results/{preset}/benchmarks/compute_bias/{run}/{seed}/{evaluation}.tsv"
    conda:
        "../envs/distalign.yaml"
    resources:
        **needs("compute_bias", mem_mb=2000, runtime=10),
    params:
        spec=lambda job: Spec(STUDY.bias_spec(job.run)),
        version=STAGES["bias"],
    message:
        "Bias of {wildcards.run}, seed {wildcards.seed}, on {wildcards.evaluation}"
    script:
        "../workflow_scripts/compute_bias.py"


rule make_reference:
    input:
        prompts=lambda job: STUDY.prompt_file(REFERENCES[job.reference]),
        dino="results/{preset}/encoders/evaluation/dino",
    output:
        reference="results/{preset}/reference/{reference}.parquet",
    log:
        "results/{preset}/logs/make_reference/{reference}.log",
    benchmark:
        "results/{preset}/benchmarks/make_reference/{reference}.tsv"
    conda:
        "../envs/distalign.yaml"
    threads: STUDY.preset.job.threads
    resources:
        **needs("make_reference", mem_mb=8000, runtime=120),
        gpu=STUDY.preset.job.gpu,
    params:
        spec=lambda job: Spec(STUDY.reference_spec(REFERENCES[job.reference])),
        version=STAGES["reference"],
    message:
        "Real pictures {wildcards.reference} to compare images with"
    script:
        "../workflow_scripts/make_reference.py"


rule compute_quality:
    input:
        features="results/{preset}/features/{run}/{seed}/{evaluation}.parquet",
        classified="results/{preset}/classified/{run}/{seed}/{evaluation}.parquet",
        reference=lambda job: f"results/{{preset}}/reference/{STUDY.reference_id(job.evaluation)}.parquet",
    output:
        quality="results/{preset}/quality/{run}/{seed}/{evaluation}.parquet",
    log:
        "results/{preset}/logs/compute_quality/{run}/{seed}/{evaluation}.log",
    benchmark:
        "results/{preset}/benchmarks/compute_quality/{run}/{seed}/{evaluation}.tsv"
    conda:
        "../envs/distalign.yaml"
    threads: STUDY.preset.job.threads
    resources:
        **needs("compute_quality", mem_mb=4000, runtime=60),
    params:
        spec=lambda job: Spec(STUDY.quality_spec(job.evaluation)),
        version=STAGES["quality"],
    message:
        "Image quality of {wildcards.run}, seed {wildcards.seed}, on {wildcards.evaluation}"
    script:
        "../workflow_scripts/compute_quality.py"
