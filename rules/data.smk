# Face data sets: rendered by the mini world, or read from a published one. One Parquet file each.


rule make_faces:
    output:
        faces="results/{preset}/faces/{dataset}.parquet",
    log:
        "results/{preset}/logs/make_faces/{dataset}.log",
    benchmark:
        "results/{preset}/benchmarks/make_faces/{dataset}.tsv"
    priority: 2  # finetuning, the longest job, waits for it
    conda:
        "../envs/distalign.yaml"
    threads: STUDY.preset.job.threads
    resources:
        **needs("make_faces", mem_mb=8000, runtime=720),
        gpu=lambda job: 0 if STUDY.preset.faces[job.dataset].source == "rendered" else STUDY.preset.job.gpu,
    params:
        spec=lambda job: Spec(STUDY.faces_spec(job.dataset)),
        version=STAGES["faces"],
    message:
        "Faces of data set {wildcards.dataset}"
    script:
        "../workflow_scripts/make_faces.py"
