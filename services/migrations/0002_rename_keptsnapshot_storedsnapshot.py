from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [("services", "0001_initial")]

    operations = [migrations.RenameModel(old_name="KeptSnapshot", new_name="StoredSnapshot")]
