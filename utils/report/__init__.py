"""What a run did, as one HTML page: reading its files, evaluating its networks, pictures, text.

    recorded.py     what a run's folder holds; what is missing is None
    evaluation.py   the last network on the validation split, the label maps' pixels, both cached
    asked.py        what was asked and answered
    cost.py         seconds, minutes of annotation
    pictures.py     the pictures, by matplotlib
    progress.py     the same images by round
    html.py         the only place that writes tags: whatever comes from files is escaped
    run_part.py     the sections of one run
    build.py        the page
"""
