"""What an entry of `earlier_tasks` may say: the fields of a recipe that name the rows of a task."""

#: Fields of the script that name the rows of a task.
OF_SCRIPT = (
    *("task", "task_path", "task_size", "task_eval_size"),
    *("dataset_name", "dataset_config", "dataset_train_split"),
)
#: Fields of the trainer that decide which of them are held out, and how they are rendered.
OF_TRAINER = ("max_length", "dataset_text_field", "seed", "data_seed", "chat_template_kwargs")
