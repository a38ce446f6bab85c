# Images of the evaluations. A run, its original and every other method draw the same noise. With several GPUs, a
# process on each makes a part of them, and the file is the same (set-resources: generate_images).


rule generate_images:
    input:
        unpack(looking),
        prompts=lambda job: STUDY.prompt_file(job.evaluation),
        backbone="results/{preset}/backbone",
        adapter=adapter,
    output:
        images="results/{preset}/images/{run}/{seed}/{evaluation}.parquet",
        cost="results/{preset}/cost/{run}/{seed}/{evaluation}.parquet",
    log:
        "results/{preset}/logs/generate_images/{run}/{seed}/{evaluation}.log",
    benchmark:
        "results/{preset}/benchmarks/generate_images/{run}/{seed}/{evaluation}.tsv"
    conda:
        "../envs/distalign.yaml"
    threads: STUDY.preset.job.threads
    resources:
        **needs("generate_images", mem_mb=16000, runtime=480),
        gpu=STUDY.preset.job.gpu,
    params:
        spec=lambda job: Spec(STUDY.image_spec(job.run, int(job.seed), job.evaluation)),
        version=STAGES["generate"],
    message:
        "Images of {wildcards.run}, seed {wildcards.seed}, for {wildcards.evaluation}"
    script:
        "../workflow_scripts/generate_images.py"
