# Attribute classifiers, and the bank of real faces: trained or computed from face data sets, or ready-made.


localrules:
    fetch_classifier,
    classifiers,


rule classifiers:
    input:
        expand("results/{p}/classifiers/{c}/card.md", p=PRESET, c=STUDY.preset.classifiers),


rule train_classifier:
    input:
        faces=lambda job: expand(
            "results/{preset}/faces/{dataset}.parquet",
            dataset=sorted(set(STUDY.preset.classifiers[job.classifier].labels.values())),
            allow_missing=True,
        ),
        backbone=lambda job: (
            "results/{preset}/backbone" if STUDY.preset.classifiers[job.classifier].reconstruct else []
        ),
        initial=lambda job: (
            "results/{preset}/initial/{classifier}" if STUDY.preset.classifiers[job.classifier].initial else []
        ),
    output:
        model="results/{preset}/classifiers/{classifier}/model.safetensors",
        metrics="results/{preset}/classifiers/{classifier}/metrics.parquet",
        card="results/{preset}/classifiers/{classifier}/card.md",
    log:
        "results/{preset}/logs/train_classifier/{classifier}.log",
    benchmark:
        "results/{preset}/benchmarks/train_classifier/{classifier}.tsv"
    wildcard_constraints:
        classifier=one_of(set(STUDY.preset.classifiers) - READY),
    conda:
        "../envs/distalign.yaml"
    threads: 8
    resources:
        **needs("train_classifier", mem_mb=16000, runtime=480),
        gpu=1,
    params:
        spec=lambda job: Spec(STUDY.classifier_spec(job.classifier)),
        version=STAGES["classifiers"],
    message:
        "Training classifier {wildcards.classifier}"
    script:
        "../workflow_scripts/train_classifier.py"


rule fetch_classifier:
    output:
        model="results/{preset}/classifiers/{classifier}/model.safetensors",
        metrics="results/{preset}/classifiers/{classifier}/metrics.parquet",
        card="results/{preset}/classifiers/{classifier}/card.md",
    log:
        "results/{preset}/logs/fetch_classifier/{classifier}.log",
    benchmark:
        "results/{preset}/benchmarks/fetch_classifier/{classifier}.tsv"
    wildcard_constraints:
        classifier=one_of(READY),
    conda:
        "../envs/distalign.yaml"
    resources:
        mem_mb=1000,
        runtime=60,
    params:
        spec=lambda job: weights_spec(STUDY.preset.classifiers[job.classifier].weights),
        version=STAGES["classifiers"],
    message:
        "Weights of classifier {wildcards.classifier}"
    script:
        "../workflow_scripts/fetch_classifier.py"


rule build_bank:
    input:
        faces=faces_of(STUDY.preset.bank),
        face_embedding=[] if STUDY.preset.bank.path else "results/{preset}/face_embedding",
    output:
        bank="results/{preset}/bank.safetensors",
    log:
        "results/{preset}/logs/build_bank.log",
    benchmark:
        "results/{preset}/benchmarks/build_bank.tsv"
    priority: 2  # finetuning, the longest job, waits for it
    conda:
        "../envs/distalign.yaml"
    threads: STUDY.preset.job.threads
    resources:
        **needs("build_bank", mem_mb=8000, runtime=120),
        gpu=STUDY.preset.job.gpu,
    params:
        spec=Spec(STUDY.bank_spec()),
        version=STAGES["faces"],
    message:
        "Bank of real faces"
    script:
        "../workflow_scripts/build_bank.py"


use rule build_bank as build_reader with:
    input:
        faces=faces_of(STUDY.preset.reader),
        face_embedding="results/{preset}/face_embedding",
    output:
        bank="results/{preset}/reader.safetensors",
    log:
        "results/{preset}/logs/build_reader.log",
    benchmark:
        "results/{preset}/benchmarks/build_reader.tsv"
    resources:
        **needs("build_reader", mem_mb=8000, runtime=120),
        gpu=STUDY.preset.job.gpu,
    params:
        spec=Spec(STUDY.reader_spec()),
        version=STAGES["faces"],
    message:
        "Labelled faces for the independent reader"
