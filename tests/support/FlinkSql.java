import org.apache.flink.table.api.EnvironmentSettings;
import org.apache.flink.table.api.ResultKind;
import org.apache.flink.table.api.TableEnvironment;
import org.apache.flink.table.api.TableResult;
import org.apache.flink.types.Row;
import org.apache.flink.util.CloseableIterator;

/** Runs SQL statements, one an argument, on a Flink cluster in this process, and prints each row of their answers with tabs between its values. */
public class FlinkSql {
    public static void main(String[] statements) throws Exception {
        TableEnvironment tables = TableEnvironment.create(EnvironmentSettings.inStreamingMode());
        tables.getConfig().set("parallelism.default", "1");
        for (String statement : statements) {
            TableResult result = tables.executeSql(statement);
            if (result.getResultKind() == ResultKind.SUCCESS_WITH_CONTENT) {
                try (CloseableIterator<Row> rows = result.collect()) {
                    while (rows.hasNext()) {
                        print(rows.next());
                    }
                }
            }
        }
    }

    private static void print(Row row) {
        StringBuilder line = new StringBuilder("ROW");
        for (int place = 0; place < row.getArity(); place++) {
            line.append('\t').append(row.getField(place));
        }
        System.out.println(line);
    }
}
